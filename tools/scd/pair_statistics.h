// One pass of both models over the same windows, layer by layer in lockstep, gathering per layer what the fits need.
// Memory does not depend on how much text goes through.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/codec/calibration/reservoir.h"
#include "common/codec/calibration/second_moment.h"
#include "common/model/model.h"
#include "tools/scd/calibration_text.h"

namespace scd {

class WindowPass;

struct LayerStatistics {
  SecondMoment keys;        // of rows [K~_A  K~_B] without RoPE, one a (token, head): [2 head_dim, 2 head_dim]
  SecondMoment values;      // of rows [V_A  V_B]
  PairReservoir attention;  // x_A, x_B: normalised attention inputs of sampled tokens
};

struct PairStatisticsOptions {
  int64_t sinks = 16;  // first positions of a window are never coded, so they are not counted
  int64_t reservoir_tokens = 4096;
  uint64_t seed = 1;
  int64_t batch_tokens = 2048;  // of a step: bounds the memory of activations
};

class PairStatistics {
 public:
  // Models of one KV shape; they must outlive it.
  PairStatistics(const Model& producer, const Model& consumer, const PairStatisticsOptions& options);

  // Windows of at most batch_tokens in sum.
  void add(std::span<const TokenWindow> windows);

  std::span<const LayerStatistics> layers() const { return layers_; }
  int64_t tokens() const { return tokens_; }

 private:
  void add_layer(int32_t layer, WindowPass& producer, WindowPass& consumer);

  const Model& producer_;
  const Model& consumer_;
  PairStatisticsOptions options_;
  std::vector<LayerStatistics> layers_;
  int64_t tokens_ = 0;
};

// Calls add() with batches of windows until all went through; progress gets the share done.
void add_all(PairStatistics& statistics, std::span<const TokenWindow> windows, int64_t batch_tokens,
             const std::function<void(double)>& progress);

}  // namespace scd
