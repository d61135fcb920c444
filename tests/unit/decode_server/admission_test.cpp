#include "decode_server/request/admission.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <future>

#include "common/threads/bounded_queue.h"
#include "tests/unit/decode_server/served_models.h"

namespace scd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FakeCompute final : public ComputeStage {
 public:
  void admit(std::shared_ptr<DecodeJob> job) override { admitted.push(std::move(job)); }
  void wake() override {}
  void transfer_accepted(TransferKey, TransferPlan) override {}
  void message_arrived(TransferKey, ReceivedMessage) override {}
  void transfer_restarted(TransferKey) override {}
  void transfer_declined(TransferKey, LocalChoice) override {}
  void transfer_finished(TransferKey) override {}
  void transfer_failed(TransferKey, Failure) override {}

  std::shared_ptr<DecodeJob> next() { return admitted.pop_until(ServingClock::now() + seconds(5)).value_or(nullptr); }
  BoundedQueue<std::shared_ptr<DecodeJob>> admitted{64};
};

class FailureSink final : public CompletionSink {
 public:
  void on_prompt(const PromptInfo&) override {}
  void on_delta(CompletionDelta) override {}
  void on_end(CompletionEnd) override {}
  void on_failure(const Failure& failure) override { failed.set_value(failure); }
  std::promise<Failure> failed;
};

class AdmissionTest : public ::testing::Test {
 protected:
  AdmissionTest() : tokenizer_(testing::byte_tokenizer()), pages_(8, kPageTokens) {
    model_.vocab = 300;
    model_.max_positions = 128;
    config_.kv_cache.pages = 8;
    config_.limits.max_running = 1;
    config_.limits.max_waiting = 3;
  }

  struct Submitted {
    std::shared_ptr<FailureSink> sink;
    std::weak_ptr<DecodeJob> job;
    Result<Done> outcome;
    ErrorCode failure() {
      auto future = sink->failed.get_future();
      return future.wait_for(seconds(5)) == std::future_status::ready ? future.get().code : ErrorCode::kUnknown;
    }
  };
  Submitted submit(Admission& admission, int32_t priority = 0, milliseconds deadline = seconds(60), int ids = 4) {
    auto sink = std::make_shared<FailureSink>();
    auto job = std::make_shared<DecodeJob>(next_id_++, ServingClock::now(), sink);
    job->deadline = ServingClock::now() + deadline;
    job->model = served_;
    job->request.priority = priority;
    job->request.stop.max_tokens = 8;
    v1::CompleteRequest request;
    for (int i = 0; i < ids; ++i) request.mutable_token_ids()->add_ids(3);
    std::weak_ptr<DecodeJob> weak = job;
    auto outcome = admission.submit(std::move(job), std::move(request));
    return {std::move(sink), std::move(weak), std::move(outcome)};
  }

  DecodeConfig config_;
  ModelConfig model_;
  Tokenizer tokenizer_;
  PagePool pages_;
  PrefixCache prefixes_{pages_, 8};
  std::shared_ptr<ServedModel> served_ = testing::served_model({config_, model_, tokenizer_, "tiny", 8}, prefixes_);
  FakeCompute compute_;
  uint64_t next_id_ = 1;
};

TEST_F(AdmissionTest, higher_priority_first_then_order_of_arrival) {
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto running = submit(admission);
  auto first = compute_.next();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->id, 1u);
  const auto low = submit(admission), also_low = submit(admission), high = submit(admission, 5);
  std::vector<uint64_t> order;
  for (int i = 0; i < 3; ++i) {
    first.reset();
    admission.release();
    first = compute_.next();
    ASSERT_NE(first, nullptr);
    order.push_back(first->id);
  }
  EXPECT_EQ(order, (std::vector<uint64_t>{4, 2, 3}));
}

TEST_F(AdmissionTest, a_full_queue_refuses) {
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto running = submit(admission);
  const auto job = compute_.next();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(submit(admission).outcome.ok());
  const auto refused = submit(admission);
  ASSERT_FALSE(refused.outcome.ok());
  EXPECT_EQ(refused.outcome.failure().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(admission.refused(), 1u);
  EXPECT_EQ(admission.waiting(), 3);
}

// The thread may not have looked yet when a burst is over: what it takes must not depend on that.
TEST_F(AdmissionTest, a_burst_on_an_idle_server_fills_the_free_places_and_the_queue) {
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  int taken = 0;
  for (int i = 0; i < 12; ++i) taken += submit(admission).outcome.ok() ? 1 : 0;
  EXPECT_EQ(taken, 4);
  EXPECT_EQ(admission.refused(), 8u);
}

TEST_F(AdmissionTest, waits_for_pages_and_holds_those_of_the_prompt) {
  config_.limits.max_running = 4;
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto big = submit(admission, 0, seconds(60), 100);  // 108 tokens: 7 of 8 pages
  auto running = compute_.next();
  EXPECT_EQ(pages_.pages_in_use(), 7);
  const auto second = submit(admission, 0, seconds(60), 40);
  EXPECT_FALSE(compute_.admitted.pop_until(ServingClock::now() + milliseconds(50)).has_value());
  running.reset();
  admission.release();
  ASSERT_NE(compute_.next(), nullptr);
}

TEST_F(AdmissionTest, nobody_overtakes_one_who_gave_its_pages_up_but_who_is_more_important) {
  config_.limits.max_running = 4;
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto first = submit(admission);
  const auto running = compute_.next();
  admission.hold_back(1);
  const auto equal = submit(admission, 1);
  EXPECT_FALSE(compute_.admitted.pop_until(ServingClock::now() + milliseconds(50)).has_value());
  const auto higher = submit(admission, 2);
  auto next = compute_.next();
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(next->request.priority, 2);
  admission.hold_back(std::nullopt);
  next = compute_.next();
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(next->request.priority, 1);
}

TEST_F(AdmissionTest, leaves_those_that_run_a_page_each) {
  config_.limits.max_running = 4;
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto one = submit(admission, 0, seconds(60), 40), two = submit(admission, 0, seconds(60), 40);
  auto first = compute_.next(), second = compute_.next();
  ASSERT_NE(second, nullptr);  // 3 + 3 of 8 pages
  const auto three = submit(admission, 0, seconds(60), 10);
  EXPECT_FALSE(compute_.admitted.pop_until(ServingClock::now() + milliseconds(50)).has_value());
  second.reset();
  admission.release();
  EXPECT_NE(compute_.next(), nullptr);
}

TEST_F(AdmissionTest, takes_up_what_is_kept_of_the_prompt) {
  const std::vector<TokenId> kept(48, 3);
  {
    PageTable table = pages_.make_table();
    ASSERT_TRUE(table.reserve(48).ok());
    const PrefixCache::Run run{0, {}};
    prefixes_.insert({"", kept, std::span(&run, 1), served_->prefixes.id()}, table);
  }
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto submitted = submit(admission, 0, seconds(60), 48);
  const auto job = compute_.next();
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->held_tokens, 32);  // the last token is computed
  EXPECT_TRUE(job->held_origin.exact());
  EXPECT_EQ(job->pages.page_ids().size(), 3u);
  EXPECT_EQ(prefixes_.counters().looked_up, 47u);
  EXPECT_EQ(prefixes_.counters().found, 32u);
}

TEST_F(AdmissionTest, a_waiting_request_ends_at_its_deadline_or_when_cancelled) {
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto running = submit(admission);
  const auto job = compute_.next();
  auto late = submit(admission, 0, milliseconds(30));
  EXPECT_EQ(late.failure(), ErrorCode::kDeadlineExceeded);
  auto cancelled = submit(admission);
  const auto waiting = cancelled.job.lock();
  ASSERT_NE(waiting, nullptr);
  waiting->cancel();
  admission.wake();
  EXPECT_EQ(cancelled.failure(), ErrorCode::kCancelled);
  EXPECT_EQ(admission.waiting(), 0);
}

TEST_F(AdmissionTest, stopping_ends_what_waits) {
  Admission admission({config_.limits, pages_, prefixes_, compute_});
  const auto running = submit(admission);
  const auto job = compute_.next();
  auto waiting = submit(admission);
  admission.stop();
  EXPECT_EQ(waiting.failure(), ErrorCode::kUnavailable);
  EXPECT_FALSE(submit(admission).outcome.ok());
}

}  // namespace
}  // namespace scd
