#include "decode_server/transfer_account.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace scd {
namespace {

using std::chrono::milliseconds;

const ServingClock::time_point kZero{};

TransferSpan span(TransferPart part, int from_ms, int to_ms) {
  return {part, kZero + milliseconds(from_ms), kZero + milliseconds(to_ms)};
}

PartTimes attribute(int end_ms, std::vector<TransferSpan> spans) {
  return attribute_time(kZero, kZero + milliseconds(end_ms), spans);
}

TEST(TransferAccount, time_nobody_worked_on_is_orchestration) {
  const PartTimes times = attribute(10, {span(TransferPart::kPrefill, 2, 5)});
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kPrefill), 3);
  EXPECT_DOUBLE_EQ(times.orchestration_ms, 7);
  EXPECT_DOUBLE_EQ(times.total_ms, 10);
}

TEST(TransferAccount, an_instant_belongs_to_the_running_part_closest_to_the_first_token) {
  const PartTimes times = attribute(10, {span(TransferPart::kPrefill, 0, 8), span(TransferPart::kWire, 2, 6),
                                         span(TransferPart::kRebuild, 5, 7), span(TransferPart::kSuffix, 6, 9)});
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kPrefill), 2);
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kWire), 3);
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kRebuild), 1);
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kSuffix), 3);
  EXPECT_DOUBLE_EQ(times.orchestration_ms, 1);
}

TEST(TransferAccount, a_part_is_busy_while_any_of_its_spans_runs) {
  const std::vector<TransferSpan> spans{span(TransferPart::kWire, 0, 4), span(TransferPart::kPrefill, 0, 50),
                                        span(TransferPart::kWire, 1, 3), span(TransferPart::kWire, 2, 6),
                                        span(TransferPart::kWire, 10, 11)};
  EXPECT_EQ(busy_time(spans, TransferPart::kWire), milliseconds(7));
  EXPECT_EQ(busy_time(spans, TransferPart::kSuffix), milliseconds(0));
}

TEST(TransferAccount, spans_of_one_part_that_overlap_count_once) {
  const PartTimes times = attribute(10, {span(TransferPart::kWire, 0, 6), span(TransferPart::kWire, 2, 10)});
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kWire), 10);
  EXPECT_DOUBLE_EQ(times.orchestration_ms, 0);
}

TEST(TransferAccount, spans_are_cut_to_the_interval_and_empty_or_reversed_ones_ignored) {
  const PartTimes times = attribute(
      10, {span(TransferPart::kQueue, -5, 3), span(TransferPart::kFirstStep, 9, 40), span(TransferPart::kWire, 5, 5),
           span(TransferPart::kEncode, 7, 4), span(TransferPart::kRebuild, 50, 60)});
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kQueue), 3);
  EXPECT_DOUBLE_EQ(times.of(TransferPart::kFirstStep), 1);
  EXPECT_DOUBLE_EQ(times.orchestration_ms, 6);
}

TEST(TransferAccount, the_parts_and_orchestration_sum_to_the_total) {
  std::vector<TransferSpan> spans;
  for (int i = 0; i < 200; ++i) {
    const int from = (i * 37) % 90;
    spans.push_back(span(static_cast<TransferPart>(i % kTransferParts), from, from + (i * 13) % 11));
  }
  const PartTimes times = attribute(100, spans);
  const double sum = std::accumulate(times.part_ms.begin(), times.part_ms.end(), times.orchestration_ms);
  EXPECT_NEAR(sum, times.total_ms, 1e-9);
}

TEST(TransferAccount, an_empty_interval_has_no_time) { EXPECT_DOUBLE_EQ(attribute(0, {}).total_ms, 0); }

TEST(Timeline, a_message_is_on_the_wire_from_its_turn_at_the_sender_until_it_has_arrived) {
  Timeline timeline;
  // The kernel takes the bytes at once; the link takes 10 ms for each.
  timeline.sent(1, kZero + milliseconds(1), kZero + milliseconds(2));
  timeline.sent(1, kZero, kZero + milliseconds(1));
  timeline.arrived(1, kZero + milliseconds(10), kZero + milliseconds(10));
  timeline.arrived(1, kZero + milliseconds(20), kZero + milliseconds(20));
  std::vector<TransferSpan> spans = timeline.spans();
  std::ranges::sort(spans, {}, &TransferSpan::begin);
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[1].begin, kZero + milliseconds(1));
  EXPECT_EQ(spans[1].end, kZero + milliseconds(20));
  EXPECT_EQ(busy_time(spans, TransferPart::kWire), milliseconds(20));
}

TEST(Timeline, messages_of_a_try_that_was_given_up_stand_for_themselves) {
  Timeline timeline;
  timeline.arrived(1, kZero, kZero + milliseconds(1));  // the prefill server died before it gave an account
  timeline.sent(2, kZero + milliseconds(50), kZero + milliseconds(51));
  timeline.arrived(2, kZero + milliseconds(54), kZero + milliseconds(60));
  std::vector<TransferSpan> spans = timeline.spans();
  std::ranges::sort(spans, {}, &TransferSpan::begin);
  EXPECT_EQ(spans.size(), 2u);
  EXPECT_EQ(busy_time(spans, TransferPart::kWire), milliseconds(11));
}

TEST(Timeline, a_trys_messages_are_told_from_those_of_others) {
  Timeline timeline;
  timeline.arrived(1, kZero, kZero + milliseconds(5));
  timeline.sent(2, kZero + milliseconds(50), kZero + milliseconds(51));
  timeline.sent(2, kZero + milliseconds(40), kZero + milliseconds(41));
  timeline.arrived(2, kZero + milliseconds(54), kZero + milliseconds(60));
  timeline.arrived(2, kZero + milliseconds(44), kZero + milliseconds(50));
  const auto wire = timeline.wire_of(2);
  ASSERT_EQ(wire.size(), 2u);
  EXPECT_EQ(wire[0].begin, kZero + milliseconds(40));
  EXPECT_EQ(busy_time(wire, TransferPart::kWire), milliseconds(20));
  EXPECT_TRUE(timeline.wire_of(3).empty());
}

TEST(RemoteClock, places_the_receipt_of_start_in_the_middle_of_the_round_trip) {
  const RemoteClock clock(kZero + milliseconds(100), kZero + milliseconds(106));
  EXPECT_EQ(clock.place(milliseconds(0)), kZero + milliseconds(103));
  EXPECT_EQ(clock.place(milliseconds(20)), kZero + milliseconds(123));
}

}  // namespace
}  // namespace scd
