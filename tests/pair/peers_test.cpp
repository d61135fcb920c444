// Several prefill servers behind one decode server, and whether any is asked at all.
#include <gmock/gmock.h>

#include <map>

#include "pair.h"

namespace scd::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// Messages of the try that was asked first are late, and those of the second.
LoopbackNetwork::FaultPlan late(milliseconds first, milliseconds second) {
  return [=](const MessageHeader& header) {
    LoopbackFault fault;
    fault.delay = header.generation == 1 ? first : second;
    return fault;
  };
}

void hedge(DecodeConfig& config) {
  config.prefill.hedge_after = milliseconds(50);
  config.fallback.local_prefill = false;
}

TEST_F(PairTest, a_hedge_that_sends_first_gives_the_answer_and_leaves_nothing_behind) {
  start_prefill();
  start_prefill();
  start_decode(hedge);
  const auto request = greedy_request(300);
  const auto alone = complete_alone(request);
  network.set_faults(late(milliseconds(3000), milliseconds(0)));
  const auto begin = std::chrono::steady_clock::now();
  const auto response = complete(request);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(2500));
  EXPECT_EQ(response.text(), alone.text());
  EXPECT_EQ(response.finish().transfer().codec(), v1::CODEC_RAW);
  EXPECT_EQ(decode_server->counters().hedges, 1u);
  network.set_faults({});
  EXPECT_EQ(complete(greedy_request(300, 2)).finish().transfer().codec(), v1::CODEC_RAW);
  expect_idle();
}

TEST_F(PairTest, a_hedge_that_comes_too_late_changes_nothing) {
  start_prefill();
  start_prefill();
  start_decode(hedge);
  const auto request = greedy_request(300);
  const auto alone = complete_alone(request);
  network.set_faults(late(milliseconds(150), milliseconds(3000)));
  EXPECT_EQ(complete(request).text(), alone.text());
  EXPECT_EQ(decode_server->counters().hedges, 1u);
  network.set_faults({});
  expect_idle();
}

TEST_F(PairTest, prompts_that_begin_alike_go_to_one_prefill_server_and_others_are_spread) {
  for (int i = 0; i < 3; ++i) start_prefill();
  start_decode();
  std::map<std::string, int> served;
  for (int i = 0; i < 6; ++i) ++served[complete(greedy_request(300)).finish().transfer().prefill_endpoint()];
  EXPECT_EQ(served.size(), 1u);
  for (uint32_t seed = 2; seed < 8; ++seed) {
    ++served[complete(greedy_request(300, seed)).finish().transfer().prefill_endpoint()];
  }
  EXPECT_EQ(served.size(), 3u);
  expect_idle();
}

// The first hand-over shows how slow the link is.
TEST_F(PairTest, behind_a_slow_link_prompts_are_computed_here_and_the_account_says_why) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.002; });
  start_decode([](DecodeConfig& config) {
    config.codec.mode = CodecMode::kAuto;
    config.prefill.local = LocalPrefill::kAuto;
  });
  const auto first = complete(greedy_request(600)).finish().transfer();
  EXPECT_NE(first.codec(), v1::CODEC_ORACLE);
  EXPECT_FALSE(first.has_predicted_first_token_ms());
  const auto request = greedy_request(600, 2);
  const auto response = complete(request);
  const auto& second = response.finish().transfer();
  EXPECT_EQ(second.codec(), v1::CODEC_ORACLE);
  EXPECT_THAT(second.codec_reason(), HasSubstr("computing here"));
  EXPECT_EQ(second.fallback_reason(), "");
  EXPECT_LT(second.predicted_first_token_ms(), second.predicted_other_way_ms());
  EXPECT_GT(second.measured_first_token_ms(), 0);
  EXPECT_EQ(response.text(), complete_alone(request).text());
  auto named = greedy_request(600, 3);
  named.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_RAW);
  EXPECT_EQ(complete(named).finish().transfer().codec(), v1::CODEC_RAW) << "who names a codec gets it";
  EXPECT_EQ(decode_server->counters().local_fallbacks, 0u);
  expect_idle();
}

}  // namespace
}  // namespace scd::testing
