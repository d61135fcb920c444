// How Prometheus gets a server's metrics: its text format, and an HTTP endpoint that serves it at /metrics.
#pragma once

#include <memory>
#include <string>

#include "common/metrics/options.h"
#include "common/metrics/registry.h"

namespace scd {

std::string prometheus_text(const MetricsRegistry& registry);

class MetricsEndpoint {
 public:
  // Listens at once, with threads of its own. The registry and all it reads must outlive the endpoint.
  // Throws Error: INVALID_ARGUMENT (metrics.listen is not host:port), UNAVAILABLE (address in use or not ours).
  MetricsEndpoint(const MetricsOptions& options, const MetricsRegistry& registry);
  ~MetricsEndpoint();  // waits for scrapes under way; the HTTP library takes up to two seconds
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;

  // host:port with the port that was bound; empty when metrics.listen is.
  const std::string& address() const { return address_; }

 private:
  struct Server;
  std::unique_ptr<Server> server_;
  std::string address_;
};

}  // namespace scd
