// What a user sets about metrics; common/config describes it in YAML under `metrics`.
#pragma once

#include <string>

namespace scd {

struct MetricsOptions {
  std::string listen;  // host:port that Prometheus scrapes; empty: nothing listens
};

}  // namespace scd
