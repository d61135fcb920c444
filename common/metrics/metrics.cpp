#include "common/metrics/metrics.h"

#include <algorithm>

#include "common/base/check.h"

namespace scd {

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()), observed_(bounds.size() + 1) {
  SCD_CHECK(!bounds.empty() && std::ranges::is_sorted(bounds), "a histogram's bounds rise");
}

void Histogram::observe(double value) {
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  observed_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

Histogram::Counts Histogram::counts() const {
  Counts counts{.bounds = bounds_, .observed = {}, .sum = sum_.load(std::memory_order_relaxed)};
  for (const auto& bucket : observed_) counts.observed.push_back(bucket.load(std::memory_order_relaxed));
  return counts;
}

}  // namespace scd
