#include "common/metrics/exposition.h"

#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <limits>
#include <sstream>

#include "common/base/error.h"
#include "common/base/host_port.h"

namespace scd {
namespace {

prometheus::MetricType type_of(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter: return prometheus::MetricType::Counter;
    case MetricKind::kGauge: return prometheus::MetricType::Gauge;
    case MetricKind::kHistogram: return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

prometheus::ClientMetric::Histogram cumulative(const Histogram::Counts& counts) {
  prometheus::ClientMetric::Histogram histogram;
  for (size_t bucket = 0; bucket < counts.observed.size(); ++bucket) {
    histogram.sample_count += counts.observed[bucket];
    const bool last = bucket == counts.bounds.size();
    histogram.bucket.push_back(
        {histogram.sample_count, last ? std::numeric_limits<double>::infinity() : counts.bounds[bucket]});
  }
  histogram.sample_sum = counts.sum;
  return histogram;
}

prometheus::ClientMetric metric_of(const MetricSnapshot& metric, const MetricSample& sample) {
  prometheus::ClientMetric result;
  for (size_t label = 0; label < metric.name.labels.size(); ++label) {
    result.label.push_back({metric.name.labels[label], sample.labels.at(label)});
  }
  if (sample.histogram) result.histogram = cumulative(*sample.histogram);
  if (metric.kind == MetricKind::kCounter) result.counter.value = sample.value;
  if (metric.kind == MetricKind::kGauge) result.gauge.value = sample.value;
  return result;
}

std::vector<prometheus::MetricFamily> families_of(const MetricsRegistry& registry) {
  std::vector<prometheus::MetricFamily> families;
  for (const MetricSnapshot& metric : registry.snapshot()) {
    prometheus::MetricFamily family{metric.name.name, metric.name.help, type_of(metric.kind), {}};
    for (const MetricSample& sample : metric.samples) family.metric.push_back(metric_of(metric, sample));
    families.push_back(std::move(family));
  }
  return families;
}

class RegistryView : public prometheus::Collectable {
 public:
  explicit RegistryView(const MetricsRegistry& registry) : registry_(registry) {}
  std::vector<prometheus::MetricFamily> Collect() const override { return families_of(registry_); }

 private:
  const MetricsRegistry& registry_;
};

}  // namespace

std::string prometheus_text(const MetricsRegistry& registry) {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families_of(registry));
  return std::move(text).str();
}

struct MetricsEndpoint::Server {
  Server(const std::string& listen, const MetricsRegistry& registry)
      : view(std::make_shared<RegistryView>(registry)), exposer(listen) {
    exposer.RegisterCollectable(view);
  }

  std::shared_ptr<RegistryView> view;  // shared: the exposer wants a weak pointer
  prometheus::Exposer exposer;
};

MetricsEndpoint::MetricsEndpoint(const MetricsOptions& options, const MetricsRegistry& registry) {
  const std::string& listen = options.listen;
  if (listen.empty()) return;
  if (!is_host_port(listen)) {
    throw Error(ErrorCode::kInvalidArgument,
                "metrics.listen: '" + listen + "' is not host:port, for example 127.0.0.1:9464; empty: off");
  }
  try {
    server_ = std::make_unique<Server>(listen, registry);
  } catch (const std::exception&) {  // civetweb's says "null context when constructing CivetServer"
    throw Error(ErrorCode::kUnavailable,
                "metrics.listen: cannot listen on " + listen +
                    ": the port is in use, or the address is not one of this machine; choose another port (0: any)");
  }
  address_ = listen.substr(0, listen.rfind(':') + 1) + std::to_string(server_->exposer.GetListeningPorts().front());
}

MetricsEndpoint::~MetricsEndpoint() = default;

}  // namespace scd
