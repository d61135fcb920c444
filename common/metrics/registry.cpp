#include "common/metrics/registry.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace scd {

void MetricsRegistry::add(MetricKind kind, MetricName name, ReadAll read) {
  SCD_CHECK(name.name.starts_with("scd_"), "metrics are named scd_...");
  SCD_CHECK((kind == MetricKind::kCounter) == name.name.ends_with("_total"), "counters, and they alone, end in _total");
  SCD_CHECK(std::ranges::none_of(entries_, [&](const Entry& entry) { return entry.name.name == name.name; }),
            "a metric's name is given once");
  entries_.push_back({kind, std::move(name), std::move(read)});
}

CounterFamily& MetricsRegistry::counters(MetricName name, size_t most_series) {
  counters_.push_back(std::make_unique<CounterFamily>([] { return std::make_unique<Counter>(); }, most_series));
  CounterFamily& family = *counters_.back();
  add(MetricKind::kCounter, std::move(name), [&family] {
    std::vector<MetricSample> samples;
    for (const auto& [labels, counter] : family.series()) samples.push_back({labels, counter->value()});
    return samples;
  });
  return family;
}

HistogramFamily& MetricsRegistry::histograms(MetricName name, std::span<const double> bounds) {
  histograms_.push_back(std::make_unique<HistogramFamily>(
      [kept = std::vector<double>(bounds.begin(), bounds.end())] { return std::make_unique<Histogram>(kept); }));
  HistogramFamily& family = *histograms_.back();
  add(MetricKind::kHistogram, std::move(name), [&family] {
    std::vector<MetricSample> samples;
    for (const auto& [labels, histogram] : family.series()) samples.push_back({labels, 0, histogram->counts()});
    return samples;
  });
  return family;
}

// The one series of a family without labels never gives way.
Counter& MetricsRegistry::counter(MetricName name) { return *counters(std::move(name)).of({}); }

Histogram& MetricsRegistry::histogram(MetricName name, std::span<const double> bounds) {
  return *histograms(std::move(name), bounds).of({});
}

void MetricsRegistry::read(MetricKind kind, MetricName name, ReadOne read) {
  read_all(kind, std::move(name), [read = std::move(read)] { return std::vector<MetricSample>{{{}, read()}}; });
}

void MetricsRegistry::read_all(MetricKind kind, MetricName name, ReadAll read) {
  SCD_CHECK(kind != MetricKind::kHistogram, "histograms are counted here");
  add(kind, std::move(name), std::move(read));
}

std::vector<MetricSnapshot> MetricsRegistry::snapshot() const {
  std::vector<MetricSnapshot> all;
  for (const Entry& entry : entries_) all.push_back({entry.kind, entry.name, entry.read()});
  return all;
}

}  // namespace scd
