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

struct ErrorCostOptions {
  int32_t first = 0;  // layer that is measured
  bool on_answers =
      true;  // of validation questions KL on the consumer's own answers, else on the last tokens of the text
  uint64_t seed = 1;
  CacheExperimentOptions experiment;
};

ErrorCosts measure_error_costs(const CalibrationInput& input, const RdStatistics& statistics,
                               const ErrorCostOptions& options);

}  // namespace scd
