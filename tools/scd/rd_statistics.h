// What the fits of `rd` read: of every unit the second moments of both models' states, and a sample of the producer's
// rows for the tables; of every layer what the metric of the consumer's attention is made of. One pass of both models;
// memory does not depend on how much text goes through.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "common/codec/calibration/rate_fit.h"
#include "common/codec/calibration/second_moment.h"
#include "tools/scd/unit_pairs.h"
#include "tools/scd/unit_pass.h"

namespace scd {

struct RdUnitStatistics {
  AnchoredUnit of;
  SecondMoment joined;  // of rows [x y h_B 1], rd_maps.h
  DenseMatrix sample;   // x of some tokens
  int64_t source_dims = 0;
  int64_t target_dims = 0;
  RegressionMoment moment() const { return {joined.sum(), source_dims, target_dims}; }
};

// Of the consumer.
struct RdLayerStatistics {
  std::vector<SecondMoment> queries;  // by KV head: of its queries without RoPE, [tokens, queries a head * head_dim]
  int64_t tokens = 0;
  double residual_power = 0;  // sum over tokens of the mean square of the residual stream before the layer
  double key_variance = 0;    // mean variance of a value of its keys
  double value_variance = 0;
};

struct RdStatisticsOptions {
  int64_t sinks = 16;
  int64_t sample_tokens = 1024;                // that the tables are trained on
  std::optional<UnitPairsOptions> pairs = {};  // where networks are to be trained
};

class RdStatistics {
 public:
  // Of the units of all `plans`, summed on the models' device. The models must outlive it; one model may be both.
  RdStatistics(const Model& producer, const Model& consumer, std::span<const LayerPlan> plans,
               const RdStatisticsOptions& options);

  // Once.
  void add_all(std::span<const TokenWindow> windows, const std::function<void(double)>& progress);
  const RdUnitStatistics& unit(const AnchoredUnit& of) const;
  const UnitPairs& pairs() const;
  ModelDepths depths() const { return {producer_.config().layers, consumer_.config().layers}; }
  const Model& producer() const { return producer_; }
  const RdLayerStatistics& layer(int32_t index) const { return layers_[static_cast<size_t>(index)]; }

 private:
  void add_layer(int32_t layer, const LayerRows& rows);
  void add_unit(RdUnitStatistics& unit, const UnitRows& rows) const;

  const Model& producer_;
  const Model& consumer_;
  RdStatisticsOptions options_;
  UnitPass pass_;
  std::vector<RdLayerStatistics> layers_;
  std::vector<RdUnitStatistics> units_;
  std::optional<UnitPairs> pairs_;
};

}  // namespace scd
