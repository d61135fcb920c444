// An artifact of codec rd whose maps are random: what is served with it takes the time of the real thing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "common/codec/layer_plan.h"

namespace scd {

// Below the first, components with nearly all of their states would have to be finer than codec rd makes them.
inline constexpr double kLeastMadeUpRatio = 13.0, kMostMadeUpRatio = 10000.0;

struct MadeUpArtifactOptions {
  std::filesystem::path producer, consumer, out;  // checkpoints, and the folder to write
  int32_t exact_layers = 1;                       // 0: nothing is predicted
  int32_t group = 3;                              // layers coded together, at most
  std::vector<double> ratios{16, 32, 64, 128};    // of the levels, about; rising
  uint64_t seed = 1;
};

// Shows its progress. Returns its plan. Throws Error: what a checkpoint lacks, tokenizers that differ, ratios that do
// not rise, a folder that is there.
LayerPlan write_made_up_artifact(const MadeUpArtifactOptions& options);

}  // namespace scd
