// Many requests and few pages: what runs together answers as it does alone, whoever has to wait is continued, and
// prompts and answers get their turns.
#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "rd_pair.h"

namespace scd::testing {
namespace {

class ScheduleTest : public RdPairTest {
 protected:
  std::vector<v1::CompleteResponse> complete_together(const std::vector<v1::CompleteRequest>& requests) {
    std::vector<v1::CompleteResponse> responses(requests.size());
    std::vector<std::thread> clients;
    for (size_t i = 0; i < requests.size(); ++i) {
      clients.emplace_back([&, i] { responses[i] = complete(requests[i]); });
    }
    for (std::thread& client : clients) client.join();
    return responses;
  }
};

// Where the two most probable tokens are nearly equal, rounding may choose: batches of another size round in another
// order. Behind that the texts are two.
void expect_same(const v1::CompleteResponse& together, const v1::CompleteResponse& alone, const std::string& what) {
  ASSERT_EQ(together.token_ids_size(), alone.token_ids_size()) << what;
  for (int i = 0; i < alone.token_ids_size(); ++i) {
    if (together.token_ids(i) == alone.token_ids(i)) continue;
    const float margin = alone.logprobs(i).top(0).logprob() - alone.logprobs(i).top(1).logprob();
    EXPECT_LT(margin, 0.1f) << what << ", token " << i;
    return;
  }
}

v1::CompleteRequest long_answer(int prompt_tokens, uint32_t seed) {
  auto request = greedy_request(prompt_tokens, seed);
  request.set_max_tokens(150);
  request.set_logprobs(2);
  return request;
}

TEST_F(ScheduleTest, requests_that_give_their_pages_up_are_continued_where_they_were) {
  SCD_SKIP_ON_GPU();
  for (const bool keeps_prefixes : {false, true}) {
    for (const v1::Codec codec : {v1::CODEC_ORACLE, v1::CODEC_RAW, v1::CODEC_RD}) {
      const std::string what = v1::Codec_Name(codec) + (keeps_prefixes ? " with a prefix cache" : "");
      prefill_servers.clear();
      start_rd_prefill();
      start_rd([&](DecodeConfig& config) {
        config.prefix_cache.enabled = keeps_prefixes;
        config.kv_cache.pages = 40;  // of two whole requests and a half
      });
      std::vector<v1::CompleteRequest> requests;
      std::vector<v1::CompleteResponse> alone;
      for (uint32_t i = 0; i < 5; ++i) {
        requests.push_back(long_answer(100, i));
        requests.back().mutable_codec()->mutable_choice()->set_codec(codec);
        requests.back().set_skip_reading_prefix_cache(true);
        alone.push_back(complete(requests.back()));
        EXPECT_EQ(alone.back().finish().transfer().preemptions(), 0u) << what;
        requests.back().set_skip_reading_prefix_cache(false);
        requests.back().set_cache_salt("together");
      }
      const auto together = complete_together(requests);
      uint64_t preemptions = 0;
      for (size_t i = 0; i < requests.size(); ++i) {
        expect_same(together[i], alone[i], what);
        EXPECT_EQ(together[i].finish().usage().completion_tokens(), 150u) << what;
        EXPECT_EQ(together[i].finish().transfer().fallback_reason(), "") << what;
        preemptions += together[i].finish().transfer().preemptions();
      }
      EXPECT_GT(preemptions, 0u) << what;
      EXPECT_EQ(decode_server->counters().preemptions, preemptions) << what;
      expect_idle();
    }
  }
}

TEST_F(ScheduleTest, kept_codes_are_not_asked_for_again) {
  SCD_SKIP_ON_GPU();
  for (const int kept_mib : {0, 16}) {
    for (const bool keeps_prefixes : {false, true}) {
      prefill_servers.clear();
      start_rd_prefill();
      start_rd([&](DecodeConfig& config) {
        config.kv_cache.pages = 100;
        config.limits.kept_codes_mib = kept_mib;
        config.prefix_cache = {.enabled = keeps_prefixes, .max_uncached_tail_tokens = 0};
      });
      auto important = long_answer(600, 1), other = long_answer(300, 2);
      important.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_ORACLE);
      important.set_priority(1);
      important.set_max_tokens(950);
      other.set_max_tokens(1100);
      other.set_cache_salt("alone");
      const auto alone = complete(other);
      other.set_cache_salt("together");
      v1::CompleteResponse together;
      std::thread client([&] { together = complete(other); });
      // It is not alone until its prompt is complete.
      ASSERT_TRUE(eventually([&] { return decode_server->counters().sequences == 1; }));
      ASSERT_TRUE(eventually([&] { return decode_server->counters().transfers == 0; }));
      complete(important);
      client.join();
      const uint32_t preemptions = together.finish().transfer().preemptions();
      EXPECT_EQ(preemptions, 1u);
      expect_same(together, alone, std::to_string(kept_mib));
      // Where prefixes are kept as well, what is left of them may be all that is needed.
      const uint64_t again = decode_server->counters().transfers_started - 2;
      EXPECT_LE(again, kept_mib > 0 ? 0 : preemptions);
      if (kept_mib == 0 && !keeps_prefixes) {
        EXPECT_EQ(again, preemptions);
      }
      expect_idle();
    }
  }
}

TEST_F(ScheduleTest, who_is_more_important_keeps_its_pages) {
  start([](DecodeConfig& config) { config.kv_cache.pages = 40; });
  std::vector<v1::CompleteRequest> requests;
  for (uint32_t i = 0; i < 4; ++i) requests.push_back(long_answer(100, i));
  requests[3].set_priority(1);
  const auto responses = complete_together(requests);
  EXPECT_GT(decode_server->counters().preemptions, 0u);
  EXPECT_EQ(responses[3].finish().transfer().preemptions(), 0u);
  expect_idle();
}

TEST_F(ScheduleTest, a_request_that_was_suspended_can_be_cancelled) {
  start([](DecodeConfig& config) { config.kv_cache.pages = 100; });
  auto important = long_answer(600, 1), other = long_answer(800, 2);
  important.set_priority(1);
  important.set_max_tokens(950);
  other.set_max_tokens(700);
  bool cancelled = false;
  for (int round = 0; !cancelled && round < 40; ++round) {  // on a busy machine one may be done before the other comes
    const uint64_t before = decode_server->counters().preemptions;
    std::thread client([&] { complete(important); });
    grpc::ClientContext context;
    v1::CompleteResponse response;
    auto other_client = std::async(std::launch::async, [&] { return stub->Complete(&context, other, &response); });
    const auto suspended = [&] { return decode_server->counters().preemptions > before; };
    EXPECT_TRUE(eventually(
        [&] { return suspended() || other_client.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }));
    context.TryCancel();
    cancelled = other_client.get().error_code() == grpc::StatusCode::CANCELLED && suspended();
    client.join();
  }
  EXPECT_TRUE(cancelled);
  EXPECT_TRUE(eventually([&] { return decode_server->counters().cancelled == 1; }));
  expect_idle();
}

// Each step gives the answer under way a token, and takes up to max_batched_tokens of prompts along.
TEST_F(ScheduleTest, answers_go_on_while_a_long_prompt_is_computed) {
  constexpr int kStep = 32, kPrompt = 1500;
  start([](DecodeConfig& config) { config.limits.max_batched_tokens = kStep; });
  auto answer = greedy_request(20, 1);
  answer.set_max_tokens(1500);
  std::atomic<int> tokens{0};
  std::thread reader([&] {
    grpc::ClientContext context;
    const auto stream = stub->CompleteStream(&context, answer);
    v1::CompleteStreamResponse message;
    while (stream->Read(&message)) tokens += message.delta().token_ids_size();
  });
  ASSERT_TRUE(eventually([&] { return tokens > 5; }));
  auto prompt = greedy_request(kPrompt, 2);
  prompt.set_max_tokens(1);
  const int before = tokens;
  const auto response = complete_alone(prompt);
  const int meanwhile = tokens - before;
  EXPECT_GE(meanwhile, kPrompt / kStep);
  EXPECT_LT(meanwhile, 1400);  // it did not have to wait for the answer's end
  EXPECT_EQ(response.token_ids_size(), 1);
  reader.join();
  start_decode();
  EXPECT_EQ(complete_alone(prompt).token_ids(0), response.token_ids(0));
  expect_idle();
}

TEST_F(ScheduleTest, a_short_prompt_does_not_wait_for_long_ones) {
  if (std::getenv("SCD_TEST_DEVICE") != nullptr) GTEST_SKIP() << "a GPU is done with its long prompts too soon";
  constexpr int kLongOnes = 20;  // in turn it would come behind them all
  start([](DecodeConfig& config) {
    config.limits.prefill_chunk_tokens = 16;
    config.limits.max_running = kLongOnes + 1;
    config.kv_cache.pages = kLongOnes * 128 + 16;
  });
  int first_done = kLongOnes;
  for (int round = 0; first_done >= kLongOnes * 3 / 4 && round < 5; ++round) {  // a busy machine may ask it too late
    std::atomic<int> long_ones_done{0};
    std::vector<std::jthread> clients;
    for (uint32_t i = 0; i < kLongOnes; ++i) {
      auto long_one = greedy_request(1900, i);
      long_one.set_max_tokens(1);
      clients.emplace_back([&, long_one] {
        complete_alone(long_one);
        ++long_ones_done;
      });
    }
    ASSERT_TRUE(eventually([&] { return decode_server->counters().sequences + long_ones_done >= kLongOnes; }));
    complete_alone(greedy_request(20, 9));
    first_done = long_ones_done;
  }
  EXPECT_LT(first_done, kLongOnes * 3 / 4);
  expect_idle();
}

}  // namespace
}  // namespace scd::testing
