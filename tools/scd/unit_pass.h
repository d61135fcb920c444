// Both models over the same text, and of every unit the rows that its fits are about.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "common/codec/codec_model.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/layer_plan.h"
#include "common/model/model.h"
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
// Each once.
std::vector<AnchoredUnit> anchored_units(std::span<const LayerPlan> plans, ModelDepths depths);

// Dimensions of a unit's rows, as rd_maps.h puts them together.
struct UnitWidths {
  int64_t source = 0;  // of x, the producer's anchor included
  int64_t target = 0;  // of y
  int64_t anchor = 0;  // of h
};
UnitWidths widths_of(const AnchoredUnit& of, const CodecModel& producer, const CodecModel& consumer);

// Of one of the consumer's layers, [tokens, ...] F32: keys and queries without RoPE, the residual stream before it.
struct LayerRows {
  kernels::ConstMatrix keys, values, queries, residual;
};

// [tokens, source + target + anchor + 1] F32, as rd_maps.h puts rows together: x, y, h and a column of ones.
struct UnitRows {
  kernels::ConstMatrix all;
  UnitWidths widths;
  kernels::ConstMatrix x() const;
  kernels::ConstMatrix yh() const;
};

// Called once a batch, rows of all windows below each other, without the sinks, on the models' device. Rows are valid
// until the call returns.
struct UnitVisitor {
  std::function<void(int32_t layer, const LayerRows&)> layer;  // as it runs; may be empty
  std::function<void(size_t unit, const UnitRows&)> unit;
};

class UnitPass {
 public:
  // The models are on one device and must outlive it; one model may be both.
  UnitPass(const Model& producer, const Model& consumer, std::vector<AnchoredUnit> units, int64_t sinks);

  // Memory does not depend on how much text goes through.
  void run(std::span<const TokenWindow> windows, const UnitVisitor& visitor,
           const std::function<void(double)>& progress) const;

 private:
  // What a batch leaves of one model: its cache, and the residual stream before the layers that a unit needs.
  struct ModelRun;
  // What a unit reads of one model.
  struct StatePlace {
    int32_t first_layer = 0;
    int32_t layers = 1;
    bool residual = false;
    int32_t anchor = -1;
  };
  void run_batch(std::span<const TokenWindow> windows, const UnitVisitor& visitor) const;
  void run_consumer(ModelRun& run, const UnitVisitor& visitor) const;
  void run_producer(ModelRun& run) const;
  // Into the first columns of `to`, as rd_maps.h puts them together, with the anchor behind; returns how many.
  static int64_t put_state(const ModelRun& run, const StatePlace& place, const kernels::Matrix& to);
  bool reads_residual(int32_t layer) const;         // of the consumer
  bool reads_source_residual(int32_t layer) const;  // of the producer

  const Model& producer_;
  const Model& consumer_;
  std::vector<AnchoredUnit> units_;
  int64_t sinks_;
};

}  // namespace scd
