#include "decode_server/receive/receiver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/threads/bounded_queue.h"
#include "tests/unit/decode_server/producer.h"
#include "tests/unit/decode_server/served_models.h"

namespace scd {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using testing::Producer;

constexpr seconds kPatience{20};

// Remembers what the receiver says.
class FakeCompute final : public ComputeStage {
 public:
  void admit(std::shared_ptr<DecodeJob>) override {}
  void wake() override {}
  void transfer_accepted(TransferKey key, TransferPlan) override { accepted.push(key); }
  void message_arrived(TransferKey, ReceivedMessage message) override { messages.push(std::move(message)); }
  void transfer_restarted(TransferKey) override {}
  void transfer_finished(TransferKey key) override { finished.push(key); }
  void transfer_failed(TransferKey, Failure failure) override { failed.push(std::move(failure)); }

  BoundedQueue<TransferKey> accepted{16}, finished{16};
  BoundedQueue<ReceivedMessage> messages{16};
  BoundedQueue<Failure> failed{16};
};

class NoSink final : public CompletionSink {
 public:
  void on_prompt(const PromptInfo&) override {}
  void on_delta(CompletionDelta) override {}
  void on_end(CompletionEnd) override {}
  void on_failure(const Failure&) override {}
};

template <class T>
std::optional<T> next(BoundedQueue<T>& queue, std::chrono::milliseconds patience = kPatience) {
  return queue.pop_until(ServingClock::now() + patience);
}

// Waits until the decode server ends the call.
grpc::Status until_cancelled(Producer::Stream& stream) {
  v1::PrefillCommand command;
  while (stream.Read(&command)) {
  }
  return grpc::Status::CANCELLED;
}

v1::PrefillEvent failure_event(uint32_t code, const std::string& message) {
  v1::PrefillEvent event;
  event.mutable_failed()->set_code(code);
  event.mutable_failed()->set_message(message);
  return event;
}

class ReceiverTest : public ::testing::Test {
 protected:
  ReceiverTest() {
    consumer_.fingerprint = {.weights = "aaaa", .tokenizer = "bbbb", .rope = "{}"};
    consumer_.model = {.layers = 2, .kv_heads = 1, .head_dim = 4, .hidden = 8, .rope = {{1.0F, 0.1F}}};
    config_.prefill.credit_messages = 4;  // all the slots there are
  }

  // A prefill server with the consumer's own model, and a receiver that knows it alone.
  void serve(Producer::Script script) {
    v1::GetProducerInfoResponse info;
    info.mutable_fingerprint()->set_weights(consumer_.fingerprint.weights);
    info.mutable_fingerprint()->set_tokenizer(consumer_.fingerprint.tokenizer);
    info.mutable_fingerprint()->set_rope(consumer_.fingerprint.rope);
    info.set_layers(2);
    info.set_kv_heads(1);
    info.set_head_dim(4);
    info.set_hidden_size(8);
    info.set_chunk_tokens(16);
    producer_ = std::make_unique<Producer>(std::move(info), network_, std::move(script));
    config_.prefill.endpoints = {producer_->address()};
    receiver_ = std::make_unique<Receiver>(Receiver::Args{config_, *transport_, compute_, metrics_});
  }
  uint64_t start() {
    auto job = std::make_shared<DecodeJob>(++last_id_, ServingClock::now(), std::make_shared<NoSink>());
    job->request.prompt.assign(48, 3);
    job->model = testing::served_model({config_, model_, tokenizer_, "tiny", 8}, prefixes_, consumer_);
    receiver_->start(std::move(job), {.handover_tokens = 32, .skip_tokens = 0, .first_layer = 0});
    return last_id_;
  }
  // What a request ends with when the prefill server accepts it and then says `event`.
  Failure failure_after(std::function<v1::PrefillEvent(const v1::StartPrefill&)> event) {
    serve([this, event = std::move(event)](const v1::StartPrefill& start, Producer::Stream& stream) {
      stream.Write(producer_->acceptance(start));
      stream.Write(event(start));
      return until_cancelled(stream);
    });
    start();
    return next(compute_.failed).value_or(Failure{ErrorCode::kUnknown, "nothing failed"});
  }

  DecodeConfig config_;
  ConsumerIdentity consumer_;
  ModelConfig model_;
  Tokenizer tokenizer_ = testing::byte_tokenizer(std::filesystem::path(::testing::TempDir()) / "receiver.json");
  PagePool pages_{8, kPageTokens};
  PrefixCache prefixes_{pages_, 8};
  LoopbackNetwork network_;
  std::unique_ptr<Transport> transport_ = make_loopback_transport(testing::loopback_options(), network_);
  FakeCompute compute_;
  MetricsRegistry registry_;
  DecodeMetrics metrics_{registry_};
  std::unique_ptr<Producer> producer_;
  std::unique_ptr<Receiver> receiver_;
  uint64_t last_id_ = 0;
};

TEST_F(ReceiverTest, a_second_acceptance_is_data_loss) {
  const Failure failure = failure_after([this](const auto& start) { return producer_->acceptance(start); });
  EXPECT_EQ(failure.code, ErrorCode::kDataLoss);
  EXPECT_THAT(failure.message, HasSubstr("accepted the request twice"));
  EXPECT_THAT(failure.message, HasSubstr(producer_->address()));
}

TEST_F(ReceiverTest, a_failure_with_the_code_of_success_is_a_failure) {
  const Failure failure = failure_after([](const auto&) { return failure_event(0, "all is well"); });
  EXPECT_EQ(failure.code, ErrorCode::kUnknown);
  EXPECT_THAT(failure.message, HasSubstr("all is well"));
}

TEST_F(ReceiverTest, a_failure_with_a_code_that_is_none_is_a_failure) {
  EXPECT_EQ(failure_after([](const auto&) { return failure_event(4'000'000'000U, "?"); }).code, ErrorCode::kUnknown);
}

TEST_F(ReceiverTest, finishing_what_was_not_accepted_is_data_loss) {
  serve([](const v1::StartPrefill&, Producer::Stream& stream) {
    v1::PrefillEvent event;
    event.mutable_finished();
    stream.Write(event);
    return until_cancelled(stream);
  });
  start();
  const auto failure = next(compute_.failed);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->code, ErrorCode::kDataLoss);
}

TEST_F(ReceiverTest, a_stream_that_ends_well_before_the_codes_is_unavailable) {
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    return grpc::Status::OK;
  });
  start();
  const auto failure = next(compute_.failed);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->code, ErrorCode::kUnavailable);
}

// A message that is still read when its request ends keeps its slot, which then comes free without an event.
TEST_F(ReceiverTest, a_request_that_waits_for_slots_begins_when_the_last_reader_lets_go) {
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    producer_->send_message(start, 0);
    return until_cancelled(stream);
  });
  const uint64_t first = start();
  ASSERT_TRUE(next(compute_.accepted).has_value());
  auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  const uint64_t second = start();
  receiver_->end(first);
  EXPECT_FALSE(next(compute_.accepted, std::chrono::milliseconds(100)).has_value()) << "three of four slots are free";
  message.reset();
  const auto accepted = next(compute_.accepted);
  ASSERT_TRUE(accepted.has_value());
  EXPECT_EQ(accepted->request_id, second);
  receiver_->end(second);
}

}  // namespace
}  // namespace scd
