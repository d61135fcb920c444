// What the fits of `rd` read: of every unit the second moments of both models' states, and a sample of the producer's
// rows for the tables; of every layer what the metric of the consumer's attention is made of. One pass of both models;
// memory does not depend on how much text goes through.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "common/codec/calibration/rate_fit.h"
#include "common/codec/calibration/second_moment.h"
#include "common/codec/codec_model.h"
#include "common/model/model.h"
#include "tools/scd/cache_pages.h"
#include "tools/scd/calibration_text.h"

namespace scd {

// A unit and what it is predicted from: fits of plans that share it share its statistics.
struct AnchoredUnit {
  CodedUnit unit;
  int32_t anchor = -1;
  UnitSource source = {};  // of the producer
  bool operator==(const AnchoredUnit&) const = default;
};
std::vector<AnchoredUnit> anchored_units(const LayerPlan& plan, ModelDepths depths);

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
  std::vector<Eigen::MatrixXd> queries;  // by KV head: sum of q q^T over tokens and the head's queries, no RoPE
  int64_t tokens = 0;
  double residual_power = 0;  // sum over tokens of the mean square of the residual stream before the layer
  double key_variance = 0;    // mean variance of a value of its keys
  double value_variance = 0;
};

class RdStatistics {
 public:
  // Of the units of all `plans`. The models must outlive it; one model may be both.
  RdStatistics(const Model& producer, const Model& consumer, std::span<const LayerPlan> plans, int64_t sinks,
               int64_t sample_tokens);

  void add_all(std::span<const TokenWindow> windows, const std::function<void(double)>& progress);
  const RdUnitStatistics& unit(const AnchoredUnit& of) const;
  ModelDepths depths() const { return {producer_.config().layers, consumer_.config().layers}; }
  const Model& producer() const { return producer_; }
  const RdLayerStatistics& layer(int32_t index) const { return layers_[static_cast<size_t>(index)]; }

 private:
  // Of a batch, coded rows of all windows below each other.
  struct ModelRows {
    std::vector<KeysValues> layers;
    std::map<int32_t, DenseMatrix> residuals;  // before the layers that a unit needs
  };
  // What a unit reads of one model.
  struct StatePlace {
    int32_t first_layer = 0;
    int32_t layers = 1;
    bool residual = false;
    int32_t anchor = -1;
  };
  static DenseMatrix state_of(const ModelRows& rows, const StatePlace& place);
  void add(std::span<const TokenWindow> windows);
  ModelRows run_producer(std::span<const TokenWindow> windows) const;
  ModelRows run_consumer(std::span<const TokenWindow> windows);
  void add_layer(int32_t layer, const KeysValues& rows, const DenseMatrix& queries, const DenseMatrix& residual);
  void add_unit(RdUnitStatistics& unit, const ModelRows& producer, const ModelRows& consumer) const;
  bool reads_residual(int32_t layer) const;         // of the consumer
  bool reads_source_residual(int32_t layer) const;  // of the producer

  const Model& producer_;
  const Model& consumer_;
  int64_t sinks_;
  int64_t sample_tokens_;
  std::vector<RdLayerStatistics> layers_;
  std::vector<RdUnitStatistics> units_;
};

}  // namespace scd
