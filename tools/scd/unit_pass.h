// Both models over the same text, and of every unit the rows that its fits are about.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "common/codec/codec_model.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/layer_plan.h"
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
// Each once.
std::vector<AnchoredUnit> anchored_units(std::span<const LayerPlan> plans, ModelDepths depths);

// Dimensions of a unit's rows, as rd_maps.h puts them together.
struct UnitWidths {
  int64_t source = 0;  // of x, the producer's anchor included
  int64_t target = 0;  // of y
  int64_t anchor = 0;  // of h
};
UnitWidths widths_of(const AnchoredUnit& of, const CodecModel& producer, const CodecModel& consumer);

// Called once a batch, rows of all windows below each other, without the sinks.
struct UnitVisitor {
  // Of each of the consumer's layers as it runs: keys and queries without RoPE, the residual stream before it.
  std::function<void(int32_t layer, const KeysValues&, const DenseMatrix& queries, const DenseMatrix& residual)> layer;
  // x [tokens, source], yh [tokens, target + anchor]
  std::function<void(size_t unit, const DenseMatrix& x, const DenseMatrix& yh)> unit;
};

class UnitPass {
 public:
  // The models must outlive it; one model may be both.
  UnitPass(const Model& producer, const Model& consumer, std::vector<AnchoredUnit> units, int64_t sinks);

  // Memory does not depend on how much text goes through.
  void run(std::span<const TokenWindow> windows, const UnitVisitor& visitor,
           const std::function<void(double)>& progress) const;

 private:
  // Of a batch.
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
  void run_batch(std::span<const TokenWindow> windows, const UnitVisitor& visitor) const;
  ModelRows run_producer(std::span<const TokenWindow> windows) const;
  ModelRows run_consumer(std::span<const TokenWindow> windows, const UnitVisitor& visitor) const;
  bool reads_residual(int32_t layer) const;         // of the consumer
  bool reads_source_residual(int32_t layer) const;  // of the producer

  const Model& producer_;
  const Model& consumer_;
  std::vector<AnchoredUnit> units_;
  int64_t sinks_;
};

}  // namespace scd
