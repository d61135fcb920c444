// Numbers that a server counts while it works and Prometheus reads now and then. Counting never waits: a counter and a
// histogram are atomics, and a family's lock is held for a look-up only. Thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace scd {

// Upper bounds of buckets, seconds: from a scheduling step to a request that hits its deadline.
inline constexpr double kSecondsBounds[] = {0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
                                            0.2,    0.5,    1,     2,     5,     10,   20,   50,   100};

// Only grows. Relaxed throughout: the numbers order nothing.
class Counter {
 public:
  void add(double amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  struct Counts {
    std::vector<double> bounds;      // upper bounds of all buckets but the last, which has none
    std::vector<uint64_t> observed;  // in each bucket
    double sum = 0;
  };

  // bounds: rising, not empty.
  explicit Histogram(std::span<const double> bounds);

  void observe(double value);
  Counts counts() const;

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> observed_;
  std::atomic<double> sum_{0};
};

using LabelValues = std::vector<std::string>;

// The metrics of one name, told apart by the values of its labels.
template <class Metric>
class Family {
 public:
  using Make = std::function<std::unique_ptr<Metric>()>;
  using Series = std::pair<LabelValues, std::shared_ptr<const Metric>>;

  // Peers come and go: beyond so many series the one used longest ago gives way to a new one.
  static constexpr size_t kMaxSeries = 256;

  explicit Family(Make make, size_t most_series = kMaxSeries) : make_(std::move(make)), most_series_(most_series) {}

  // Shared: a series may give way while somebody still counts in it.
  std::shared_ptr<Metric> of(const LabelValues& values) {
    std::scoped_lock lock(mutex_);
    auto found = series_.find(values);
    if (found == series_.end()) {
      if (series_.size() >= most_series_) series_.erase(oldest());
      found = series_.emplace(values, Entry{std::shared_ptr<Metric>(make_()), 0}).first;
    }
    found->second.used = ++uses_;
    return found->second.metric;
  }

  std::vector<Series> series() const {
    std::scoped_lock lock(mutex_);
    std::vector<Series> all;
    for (const auto& [values, entry] : series_) all.emplace_back(values, entry.metric);
    return all;
  }

 private:
  struct Entry {
    std::shared_ptr<Metric> metric;
    uint64_t used = 0;
  };
  auto oldest() const {
    auto oldest = series_.begin();
    for (auto at = series_.begin(); at != series_.end(); ++at) {
      if (at->second.used < oldest->second.used) oldest = at;
    }
    return oldest;
  }

  const Make make_;
  const size_t most_series_;
  mutable std::mutex mutex_;
  std::map<LabelValues, Entry> series_;
  uint64_t uses_ = 0;
};

using CounterFamily = Family<Counter>;
using HistogramFamily = Family<Histogram>;

}  // namespace scd
