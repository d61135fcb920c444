// All metrics of one server, by name: what docs/metrics.md lists. Metrics are added while the server is put together
// and live as long as the registry; reading them is for any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/metrics/metrics.h"

namespace scd {

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };

// Names are scd_<what>_<unit>, units Prometheus' base units; counters end in _total.
struct MetricName {
  std::string name;
  std::string help;
  std::vector<std::string> labels{};
};

// One series as it was when somebody looked.
struct MetricSample {
  LabelValues labels{};
  double value = 0;                              // of a counter or gauge
  std::optional<Histogram::Counts> histogram{};  // of a histogram
};

struct MetricSnapshot {
  MetricKind kind = MetricKind::kCounter;
  MetricName name;
  std::vector<MetricSample> samples;
};

class MetricsRegistry {
 public:
  using ReadOne = std::function<double()>;
  using ReadAll = std::function<std::vector<MetricSample>()>;

  Counter& counter(MetricName name);
  CounterFamily& counters(MetricName name, size_t most_series = CounterFamily::kMaxSeries);
  Histogram& histogram(MetricName name, std::span<const double> bounds = kSecondsBounds);
  HistogramFamily& histograms(MetricName name, std::span<const double> bounds = kSecondsBounds);
  // What is counted or held elsewhere, read when somebody looks; `read` is called from any thread.
  void read(MetricKind kind, MetricName name, ReadOne read);
  void read_all(MetricKind kind, MetricName name, ReadAll read);

  std::vector<MetricSnapshot> snapshot() const;

 private:
  struct Entry {
    MetricKind kind;
    MetricName name;
    ReadAll read;
  };
  void add(MetricKind kind, MetricName name, ReadAll read);

  std::vector<Entry> entries_;
  std::vector<std::unique_ptr<CounterFamily>> counters_;
  std::vector<std::unique_ptr<HistogramFamily>> histograms_;
};

}  // namespace scd
