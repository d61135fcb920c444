// What an error in a layer's keys or values costs the consumer's answers: KL per unit of energy in the layer's metric,
// measured by noise in one layer's keys, then in its values, all others true.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/scd/calibration.h"
#include "tools/scd/rd_statistics.h"

namespace scd {

struct ErrorCosts {
  std::vector<double> keys;  // by layer; 0 for layers before `first`
  std::vector<double> values;
};

ErrorCosts measure_error_costs(const CalibrationInput& input, const RdStatistics& statistics, int32_t first,
                               const CacheExperimentOptions& options, uint64_t seed);

}  // namespace scd
