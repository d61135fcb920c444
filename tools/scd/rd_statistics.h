// What the fits of `rd` read: per layer the second moments of both models' states, the metric of the consumer's
// attention, and a sample of the producer's rows for the tables. One pass of both models in lockstep; memory does not
// depend on how much text goes through.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "common/codec/calibration/second_moment.h"
#include "common/model/model.h"
#include "tools/scd/calibration_text.h"

namespace scd {

class WindowPass;

struct RdLayerStatistics {
  SecondMoment joined;                   // of rows [K~_A V_A  K~_B V_B  1]
  std::vector<Eigen::MatrixXd> queries;  // by KV head of B: sum of q q^T over tokens and the head's queries, no RoPE
  int64_t query_count = 0;               // tokens times query heads of a KV head
  DenseMatrix sample;                    // [K~_A V_A] of some tokens
};

class RdStatistics {
 public:
  // Models of one KV shape; they must outlive it.
  RdStatistics(const Model& producer, const Model& consumer, int64_t sinks, int64_t sample_tokens);

  void add_all(std::span<const TokenWindow> windows, const std::function<void(double)>& progress);
  std::span<const RdLayerStatistics> layers() const { return layers_; }

 private:
  void add(std::span<const TokenWindow> windows);
  void add_layer(int32_t layer, WindowPass& producer, WindowPass& consumer);

  const Model& producer_;
  const Model& consumer_;
  int64_t sinks_;
  int64_t sample_tokens_;
  std::vector<RdLayerStatistics> layers_;
};

// The metric of errors in [K~ V] of a layer of the consumer, [2 kv_width, 2 kv_width], block-diagonal by KV head. Keys:
// E[(q^T R e)^2 / d] over the queries seen and the distances R at which they may stand; values: e^T W_O W_O^T e of
// the heads that read them. Each half is scaled to trace 1: how much it matters is measured apart.
struct LayerMetric {
  Eigen::MatrixXd keys;    // [kv_width, kv_width]
  Eigen::MatrixXd values;  // [kv_width, kv_width]
};
LayerMetric metric_of(const Model& consumer, int32_t layer, const RdLayerStatistics& statistics);

}  // namespace scd
