#include "common/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/metrics/registry.h"

namespace scd {
namespace {

using ::testing::ElementsAre;

constexpr double kBounds[] = {1, 2, 5};

TEST(Histogram, a_value_counts_in_the_first_bucket_whose_bound_it_does_not_exceed) {
  Histogram histogram(kBounds);
  for (const double value : {0.5, 1.0, 1.5, 5.0, 7.0, 100.0}) histogram.observe(value);
  const Histogram::Counts counts = histogram.counts();
  EXPECT_THAT(counts.bounds, ElementsAre(1, 2, 5));
  EXPECT_THAT(counts.observed, ElementsAre(2, 1, 1, 2));
  EXPECT_DOUBLE_EQ(counts.sum, 115);
}

TEST(Histogram, threads_that_count_at_once_lose_nothing) {
  Histogram histogram(kBounds);
  Counter counter;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&] {
        for (int i = 0; i < 10'000; ++i) {
          histogram.observe(1.5);
          counter.add(2);
        }
      });
    }
  }
  EXPECT_EQ(histogram.counts().observed[1], 40'000u);
  EXPECT_DOUBLE_EQ(histogram.counts().sum, 60'000);
  EXPECT_DOUBLE_EQ(counter.value(), 80'000);
}

TEST(Family, the_series_used_longest_ago_gives_way_and_begins_anew_when_it_returns) {
  CounterFamily family([] { return std::make_unique<Counter>(); });
  for (size_t i = 0; i < CounterFamily::kMaxSeries; ++i) family.of({std::to_string(i)})->add();
  family.of({"0"})->add();
  const auto held = family.of({"1"});
  family.of({"0"})->add();
  for (size_t i = 2; i < CounterFamily::kMaxSeries; ++i) family.of({std::to_string(i)});
  family.of({"one more"})->add();
  EXPECT_EQ(family.series().size(), CounterFamily::kMaxSeries);
  held->add();  // of a series that is no longer shown
  EXPECT_EQ(family.of({"0"})->value(), 3);
  EXPECT_EQ(family.of({"1"})->value(), 0);
}

TEST(MetricsRegistry, what_is_read_elsewhere_is_read_at_each_look) {
  MetricsRegistry registry;
  double held = 3;
  registry.read(MetricKind::kGauge, {"scd_held", "Held."}, [&] { return held; });
  EXPECT_EQ(registry.snapshot().front().samples.front().value, 3);
  held = 4;
  EXPECT_EQ(registry.snapshot().front().samples.front().value, 4);
}

TEST(MetricsRegistryDeathTest, names_that_break_the_conventions_are_a_mistake_of_ours) {
  MetricsRegistry registry;
  registry.counter({"scd_requests_total", "Requests."});
  EXPECT_DEATH(registry.counter({"scd_requests_total", "Again."}), "given once");
  EXPECT_DEATH(registry.counter({"scd_requests", "No suffix."}), "end in _total");
  EXPECT_DEATH(registry.histogram({"latency_seconds", "No prefix."}), "scd_");
}

}  // namespace
}  // namespace scd
