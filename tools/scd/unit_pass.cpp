#include "tools/scd/unit_pass.h"

#include <algorithm>
#include <utility>

#include "common/codec/rd/rd_state.h"
#include "tools/scd/window_pass.h"

namespace scd {
namespace {

constexpr int64_t kBatchTokens = 2048;

}  // namespace

std::vector<AnchoredUnit> anchored_units(const LayerPlan& plan, ModelDepths depths) {
  std::vector<AnchoredUnit> units;
  for (size_t i = 0; i < plan.units.size(); ++i) {
    units.push_back({plan.units[i], plan.anchor_of(i), source_of(plan, i, depths)});
  }
  return units;
}

std::vector<AnchoredUnit> anchored_units(std::span<const LayerPlan> plans, ModelDepths depths) {
  std::vector<AnchoredUnit> units;
  for (const LayerPlan& plan : plans) {
    for (const AnchoredUnit& of : anchored_units(plan, depths)) {
      if (std::ranges::find(units, of) == units.end()) units.push_back(of);
    }
  }
  return units;
}

UnitWidths widths_of(const AnchoredUnit& of, const CodecModel& producer, const CodecModel& consumer) {
  const bool anchored = of.anchor >= 0;
  return {rd_source_width(producer, of.unit, of.source) + (anchored ? producer.hidden : 0),
          rd_state_width(consumer, of.unit), anchored ? consumer.hidden : 0};
}

UnitPass::UnitPass(const Model& producer, const Model& consumer, std::vector<AnchoredUnit> units, int64_t sinks)
    : producer_(producer), consumer_(consumer), units_(std::move(units)), sinks_(sinks) {}

void UnitPass::run(std::span<const TokenWindow> windows, const UnitVisitor& visitor,
                   const std::function<void(double)>& progress) const {
  for_each_batch(windows, kBatchTokens, [&](std::span<const TokenWindow> batch, double done) {
    run_batch(batch, visitor);
    if (progress) progress(done);
  });
}

void UnitPass::run_batch(std::span<const TokenWindow> windows, const UnitVisitor& visitor) const {
  const ModelRows consumer = run_consumer(windows, visitor);
  if (consumer.layers.front().keys.rows == 0) return;
  const bool one_model = &producer_ == &consumer_;
  const ModelRows producer = one_model ? ModelRows{} : run_producer(windows);
  for (size_t i = 0; i < units_.size(); ++i) {
    const auto& [unit, anchor, source] = units_[i];
    const DenseMatrix x =
        state_of(one_model ? consumer : producer, {source.first_layer, source.layers, unit.residual, source.anchor});
    visitor.unit(i, x, state_of(consumer, {unit.first_layer, unit.layers, unit.residual, anchor}));
  }
}

bool UnitPass::reads_residual(int32_t layer) const {
  return std::ranges::any_of(units_, [layer](const AnchoredUnit& of) {
    return of.anchor == layer || (of.unit.residual && of.unit.first_layer == layer);
  });
}

bool UnitPass::reads_source_residual(int32_t layer) const {
  return std::ranges::any_of(units_, [layer](const AnchoredUnit& of) {
    return of.source.anchor == layer || (of.unit.residual && of.source.first_layer == layer);
  });
}

UnitPass::ModelRows UnitPass::run_producer(std::span<const TokenWindow> windows) const {
  WindowPass pass(producer_, windows, sinks_);
  ModelRows rows;
  for (int32_t layer = 0; layer < producer_.config().layers; ++layer) {
    if (reads_source_residual(layer)) rows.residuals[layer] = pass.residual();
    pass.run_layer();
    rows.layers.push_back(pass.keys_values(layer));
  }
  return rows;
}

UnitPass::ModelRows UnitPass::run_consumer(std::span<const TokenWindow> windows, const UnitVisitor& visitor) const {
  WindowPass pass(consumer_, windows, sinks_);
  ModelRows rows;
  for (int32_t layer = 0; layer < consumer_.config().layers; ++layer) {
    const DenseMatrix residual = pass.residual();
    if (reads_residual(layer)) rows.residuals[layer] = residual;
    pass.run_layer();
    rows.layers.push_back(pass.keys_values(layer));
    if (visitor.layer && residual.rows > 0) visitor.layer(layer, rows.layers.back(), pass.queries(), residual);
  }
  return rows;
}

// As rd_maps.h puts it together, with the anchor behind.
DenseMatrix UnitPass::state_of(const ModelRows& rows, const StatePlace& place) {
  const int64_t tokens = rows.layers.front().keys.rows;
  KeysValues joined{DenseMatrix(tokens, 0), DenseMatrix(tokens, 0)};
  for (int32_t layer = place.first_layer; !place.residual && layer < place.first_layer + place.layers; ++layer) {
    const KeysValues& of_layer = rows.layers[static_cast<size_t>(layer)];
    joined.keys = side_by_side(std::as_const(joined.keys).view(), of_layer.keys.view());
    joined.values = side_by_side(std::as_const(joined.values).view(), of_layer.values.view());
  }
  const DenseMatrix state =
      place.residual ? rd_residual(rows.residuals.at(place.first_layer).view(), rows.residuals.at(place.anchor).view())
                     : side_by_side(std::as_const(joined.keys).view(), std::as_const(joined.values).view());
  if (place.anchor < 0) return state;
  return side_by_side(state.view(), normalised_rows(rows.residuals.at(place.anchor).view()).view());
}

}  // namespace scd
