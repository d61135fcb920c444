// Which layers are patched (arXiv:2606.07684): from all-Reuse, the KL gained by restoring one layer to the true cache
// ranks the layers; the best form a pool; a forward greedy search adds layer after layer, now with what Patch really
// gives; the budget k maximises gain per (cost x k).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tools/scd/layer_mix.h"

namespace scd {

struct LayerGain {
  int32_t layer = 0;
  double gain = 0;  // KL of all-Reuse minus KL with this layer true, nats
};

// All layers but an exact layer 0, the largest gain first. progress: share done.
std::vector<LayerGain> rank_layers(LayerMix& mix, int32_t layers, bool exact_layer0, double reuse_kl,
                                   const std::function<void(double)>& progress);

// k layers patched: those of the steps up to and including this one.
struct PatchStep {
  int32_t layer = 0;
  double kl = 0;
  double bytes_per_token = 0;
};

// The payload cost of a choice: bytes a token with these layers patched.
using PatchCost = std::function<double(std::span<const int32_t> patched)>;

struct GreedyOptions {
  int32_t layers = 0;             // of the model
  int32_t max_steps = 0;          // stop there at the latest
  bool stop_without_gain = true;  // else go on to max_steps whatever it brings
};

std::vector<PatchStep> search_greedily(LayerMix& mix, std::span<const int32_t> pool, const PatchCost& cost,
                                       const GreedyOptions& options, double reuse_kl,
                                       const std::function<void(double)>& progress);

// How many of the steps to take: the k with the largest gain(k) / (cost(k) / cost(0) * k), cost in bytes a token; 0
// when no step gains. With max_kl > 0 the best of those that meet it; where none does, the one with the lowest KL.
int32_t choose_budget(std::span<const PatchStep> steps, double reuse_kl, double reuse_bytes_per_token, double max_kl);

}  // namespace scd
