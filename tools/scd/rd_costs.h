// What an error in a layer's keys or values costs the consumer: KL per unit of energy in the layer's metric,
// measured by noise in one layer's keys, then in its values, all others true.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/scd/calibration.h"
#include "tools/scd/rd_statistics.h"
#include "tools/scd/scored_text.h"

namespace scd {

struct ErrorCosts {
  std::vector<double> keys;  // by layer; 0 for layers before `first`
  std::vector<double> values;
};

struct ErrorCostOptions {
  int32_t first = 0;  // layer that is measured
  uint64_t seed = 1;
  CacheExperimentOptions experiment;
};

ErrorCosts measure_error_costs(const Model& consumer, const ScoredText& text, const RdStatistics& statistics,
                               const ErrorCostOptions& options);

}  // namespace scd
