// Calibrates `rd` for a pair of models: statistics, what an error in each layer's keys and values costs in KL, the fit
// in that metric, the coder's tables, and levels checked on text that nothing was fitted on.
#pragma once

#include <cstdint>
#include <vector>

#include "common/codec/artifact.h"
#include "tools/scd/cache_experiment.h"
#include "tools/scd/calibration.h"

namespace scd {

struct RdCalibrationOptions {
  std::vector<double> ratios{4, 8, 12, 16, 24, 32, 48};  // of BF16 bytes to a level's, by the coder's tables
  double ridge = 1e-4;
  uint64_t seed = 1;
  int64_t sample_tokens = 1024;  // that the tables are trained on
  CacheExperimentOptions experiment;
};

// What calibration found out of one layer.
struct RdLayerReport {
  double key_weight = 0;  // KL per unit of error in the metric
  double value_weight = 0;
  double unpredictable = 0;  // share of the weighted energy that no rate buys
};

struct RdCalibrationResult {
  ArtifactEncoder encoder;
  ArtifactDecoder decoder;  // its levels are measured on held-out text
  std::vector<RdLayerReport> layers;
};

// Same input and options, same artifact. Shows its progress. Throws Error kFailedPrecondition for models whose caches
// do not have one shape.
RdCalibrationResult calibrate_rd(const CalibrationInput& input, const RdCalibrationOptions& options);

}  // namespace scd
