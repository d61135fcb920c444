#include "tools/scd/load_statistics.h"

#include <gtest/gtest.h>

namespace scd {
namespace {

LoadRecord answered(double ttft_ms, std::vector<double> itl_ms) {
  LoadRecord record{.ttft_ms = ttft_ms, .e2e_ms = ttft_ms};
  for (const double gap : itl_ms) record.e2e_ms += gap;
  record.output_tokens = static_cast<int64_t>(itl_ms.size()) + 1;
  record.itl_ms = std::move(itl_ms);
  record.prompt_tokens = 100;
  return record;
}

TEST(LoadStatistics, percentiles_are_of_answers_and_of_every_gap_between_tokens) {
  std::vector<LoadRecord> records;
  for (int i = 1; i <= 100; ++i) records.push_back(answered(i, {1, 1, i == 100 ? 50.0 : 1}));
  records.push_back({.error = "UNAVAILABLE: gone", .ttft_ms = 1e9, .e2e_ms = 1e9});
  const LoadSummary summary = summarise(records, 10, {});
  EXPECT_EQ(summary.requests, 101u);
  EXPECT_EQ(summary.failed, 1u);
  EXPECT_EQ(summary.ttft_ms.p50, 50);
  EXPECT_EQ(summary.ttft_ms.p90, 90);
  EXPECT_EQ(summary.ttft_ms.p99, 99);
  EXPECT_EQ(summary.itl_ms.p99, 1) << "one gap of 300 was long";
  EXPECT_EQ(summary.e2e_ms.p50, 53);
  EXPECT_DOUBLE_EQ(summary.requests_per_s, 10);
  EXPECT_DOUBLE_EQ(summary.output_tokens_per_s, 40);
  EXPECT_DOUBLE_EQ(summary.total_tokens_per_s, 1040);
}

TEST(LoadStatistics, goodput_counts_answers_within_every_goal) {
  const std::vector<LoadRecord> records{answered(100, {10, 30}),                    // at each limit
                                        answered(101, {1, 1}),                      // its first token was late
                                        answered(50, {20, 21}),                     // its tokens were slow
                                        answered(100, {20, 20, 20}),                // it took too long as a whole
                                        answered(1, {}),                            // one token has no gaps
                                        {.error = "DEADLINE_EXCEEDED: too late"}};  // no answer
  const ServiceLevel level{.ttft_ms = 100, .itl_ms = 20, .e2e_ms = 140};
  const LoadSummary summary = summarise(records, 4, level);
  EXPECT_DOUBLE_EQ(summary.goodput_per_s, 2.0 / 4);
  EXPECT_DOUBLE_EQ(summary.goodput_share, 2.0 / 6) << "what failed is not good";
  EXPECT_DOUBLE_EQ(summarise(records, 4, {.ttft_ms = 100}).goodput_per_s, 4.0 / 4);
  EXPECT_DOUBLE_EQ(summarise(records, 4, {}).goodput_share, 5.0 / 6);
}

TEST(LoadStatistics, bytes_a_token_and_the_cached_share_are_of_what_was_handed_over) {
  LoadRecord sent = answered(1, {1}), stored = answered(1, {1}), alone = answered(1, {1});
  sent.handover_tokens = 100;
  sent.wire_bytes = 1000;
  stored.handover_tokens = 300;
  stored.cached_tokens = 100;
  stored.wire_bytes = 3000;
  alone.handover_tokens = 0;
  stored.fell_back = true;
  const auto row = to_json(summarise(std::vector{sent, stored, alone}, 1, {}), {});
  EXPECT_EQ(row["bytes_per_token"], 10.0);
  EXPECT_EQ(row["cached_share"], 0.25);
  EXPECT_EQ(row["fell_back"], 1);
  EXPECT_TRUE(row["goodput_per_s"].is_null()) << "no goal was named";
  EXPECT_TRUE(row["slo_ttft_ms"].is_null());
  EXPECT_EQ(to_json(summarise(std::vector{sent}, 2, {.ttft_ms = 5}), {.ttft_ms = 5})["goodput_per_s"], 0.5);
}

TEST(LoadStatistics, predictions_are_judged_each_for_itself_and_only_where_there_were_some) {
  std::vector<LoadRecord> records;
  for (const double measured : {5.0, 8.0, 15.0}) {
    records.push_back(answered(1, {1}));
    records.back().wire_bytes = 1;
    records.back().predicted_transfer_ms = 10;
    records.back().measured_transfer_ms = measured;
  }
  records.push_back(answered(1, {1}));
  records.back().wire_bytes = 1;
  records.back().measured_transfer_ms = 1000;
  const auto row = to_json(summarise(records, 1, {}), {});
  EXPECT_EQ(row["predicted"], 3);
  EXPECT_DOUBLE_EQ(row["prediction_error_p50_share"].get<double>(), 0.5) << "off by 0.5, 0.2 and 0.5";
  records.resize(1);
  records.front().predicted_transfer_ms.reset();
  EXPECT_TRUE(to_json(summarise(records, 1, {}), {})["prediction_error_p50_share"].is_null());
}

TEST(LoadStatistics, times_to_the_first_token_have_their_own_prediction_and_count_what_was_not_handed_over) {
  std::vector<LoadRecord> records(3, answered(1, {1}));
  records[0].predicted_first_token_ms = records[1].predicted_first_token_ms = 10;
  records[0].measured_first_token_ms = 12;
  records[1].measured_first_token_ms = 6;
  records[1].computed_there = true;
  const auto row = to_json(summarise(records, 1, {}), {});
  EXPECT_EQ(row["first_token_predicted"], 2);
  EXPECT_NEAR(row["first_token_prediction_error_p90_share"].get<double>(), 0.4, 0.05);
  EXPECT_EQ(row["computed_there"], 1);
  EXPECT_EQ(row["predicted"], 0);
  records.resize(1);
  records.front().predicted_first_token_ms.reset();
  EXPECT_TRUE(to_json(summarise(records, 1, {}), {})["first_token_prediction_error_p50_share"].is_null());
}

TEST(LoadStatistics, nothing_answered_has_no_latencies) {
  const std::vector<LoadRecord> records{{.error = "UNAVAILABLE: gone"}};
  const LoadSummary summary = summarise(records, 0, {.ttft_ms = 1});
  EXPECT_EQ(summary.ttft_ms.p99, 0);
  EXPECT_EQ(summary.requests_per_s, 0);
  EXPECT_FALSE(to_json(summary, {.ttft_ms = 1}).contains("bytes_per_token"));
}

}  // namespace
}  // namespace scd
