#include "prefill_server/handover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "prefill_server/spans.h"

namespace scd {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

PrefillRequest asking(int64_t handover) {
  PrefillRequest request;
  request.handover_tokens = handover;
  return request;
}

TEST(Handover, ChunksEndAtMultiplesAndAtTheEndAndLeaveOutSkippedTokens) {
  EXPECT_THAT(chunks_until(80, 0, 32), ElementsAre(TokenRange{0, 32}, TokenRange{32, 32}, TokenRange{64, 16}));
  EXPECT_THAT(chunks_until(80, 4, 32), ElementsAre(TokenRange{4, 28}, TokenRange{32, 32}, TokenRange{64, 16}));
  EXPECT_THAT(chunks_until(80, 70, 32), ElementsAre(TokenRange{70, 10}));
}

TEST(Handover, WithNothingStoredTheWholeIsComputed) {
  const HandoverPlan plan = plan_handover(asking(80), {0, 128}, 32, layer_by_layer(10, 0));
  EXPECT_EQ(plan.handover_tokens, 80);
  EXPECT_EQ(plan.cached_tokens, 0);
  EXPECT_EQ(plan.messages(), 30U);
}

TEST(Handover, AShortUncachedTailIsLeftToTheConsumer) {
  const HandoverPlan plan =
      plan_handover(asking(96), {.cached_tokens = 80, .max_uncached_tail = 16}, 32, layer_by_layer(10, 0));
  EXPECT_EQ(plan.handover_tokens, 80);
  EXPECT_EQ(plan.cached_tokens, 80);
  EXPECT_EQ(plan.chunks.back(), (TokenRange{64, 16}));
}

TEST(Handover, ALongUncachedTailIsComputedAndStoredWholeChunksAreUsed) {
  const HandoverPlan plan =
      plan_handover(asking(160), {.cached_tokens = 80, .max_uncached_tail = 16}, 32, layer_by_layer(10, 0));
  EXPECT_EQ(plan.handover_tokens, 160);
  EXPECT_EQ(plan.cached_tokens, 64) << "the stored tail [64, 80) is not a chunk of this hand-over";
  EXPECT_EQ(plan.chunks.size(), 5U);
}

TEST(Handover, ChunksTheConsumerHoldsAreNotSent) {
  PrefillRequest request = asking(96);
  request.held_tokens = 40;
  const HandoverPlan plan = plan_handover(request, {}, 32, layer_by_layer(10, 1));
  EXPECT_THAT(plan.chunks, ElementsAre(TokenRange{32, 32}, TokenRange{64, 32}));
  EXPECT_EQ(plan.first_token(), 32);
  EXPECT_EQ(plan.messages(), 18U);
  request.held_tokens = 96;
  EXPECT_THAT(plan_handover(request, {}, 32, layer_by_layer(10, 1)).chunks, IsEmpty());
}

TEST(Handover, AConsumerThatHoldsMoreThanIsStoredGetsAllItAskedFor) {
  PrefillRequest request = asking(96);
  request.held_tokens = 64;
  EXPECT_EQ(plan_handover(request, {.cached_tokens = 32, .max_uncached_tail = 128}, 32, layer_by_layer(10, 0))
                .handover_tokens,
            96);
}

TEST(SpanLog, IsSortedSummedAndBounded) {
  SpanLog spans;
  const PrefillClock::time_point start{};
  for (int i = 0; i < 5000; ++i) {
    const auto at = start + std::chrono::microseconds(10 * (5000 - i));
    spans.add({PrefillPart::kWire, at, at + std::chrono::microseconds(5)});
  }
  EXPECT_EQ(spans.sorted().size(), SpanLog::kMaxSpans);
  EXPECT_LT(spans.sorted()[0].start, spans.sorted()[1].start);
  EXPECT_GE(spans.total(PrefillPart::kWire), std::chrono::microseconds(5 * 4096));
  EXPECT_EQ(spans.total(PrefillPart::kEncode).count(), 0);
}

}  // namespace
}  // namespace scd
