#include "common/codec/layer_plan.h"

#include <algorithm>

namespace scd {
namespace {

std::string range_text(int32_t first, int32_t count) {
  return std::to_string(first) + (count > 1 ? "-" + std::to_string(first + count - 1) : "");
}

}  // namespace

int32_t LayerPlan::anchor_of(size_t unit) const {
  if (!predicted) return -1;
  for (size_t i = unit; i-- > 0;) {
    if (units[i].residual) return units[i].end() - 1;
  }
  return exact_layers - 1;
}

size_t LayerPlan::unit_at(int32_t layer) const {
  const auto found = std::ranges::find(units, layer, &CodedUnit::first_layer);
  return static_cast<size_t>(found - units.begin());
}

double LayerPlan::native_share(int32_t layers) const {
  int32_t native = std::max(exact_layers - 1, 0);
  for (const CodedUnit& unit : units) native += unit.residual ? unit.layers - 1 : 0;
  return static_cast<double>(native) / layers;
}

UnitSource source_of(const LayerPlan& plan, size_t unit, ModelDepths depths) {
  const CodedUnit& coded = plan.units[unit];
  const auto [producer, consumer] = depths;
  const auto floor_of = [&](int32_t layer) { return layer * producer / consumer; };
  const auto ceiling_of = [&](int32_t layer) { return (layer * producer + consumer - 1) / consumer; };
  UnitSource source{floor_of(coded.first_layer), 1, -1};
  if (coded.residual) {
    const int32_t nearest = (2 * coded.first_layer * producer + consumer) / (2 * consumer);
    source.first_layer = std::min(nearest, producer - 1);
  }
  source.layers = std::max(ceiling_of(coded.end()) - source.first_layer, 1);
  const int32_t anchor = plan.anchor_of(unit);
  if (anchor >= 0) source.anchor = floor_of(anchor);
  return source;
}

LayerPlan layer_by_layer(int32_t layers, int32_t exact_layers) {
  LayerPlan plan{exact_layers, {}, /*predicted=*/false};
  for (int32_t layer = exact_layers; layer < layers; ++layer) plan.units.push_back({.first_layer = layer});
  return plan;
}

std::string plan_problem(const LayerPlan& plan, int32_t layers) {
  if (plan.exact_layers < 0 || plan.exact_layers >= layers) {
    return std::to_string(plan.exact_layers) + " exact layers of " + std::to_string(layers);
  }
  int32_t next = plan.exact_layers;
  for (const CodedUnit& unit : plan.units) {
    if (unit.first_layer != next || unit.layers < 1 || unit.layers > layers - next) {
      return "a unit of layers " + range_text(unit.first_layer, unit.layers) + " where layer " + std::to_string(next) +
             " of " + std::to_string(layers) + " comes next";
    }
    if (unit.residual && plan.predicted && plan.exact_layers == 0)
      return "a native span needs exact layers before it to be predicted from";
    next = unit.end();
  }
  return next == layers ? std::string() : "layers from " + std::to_string(next) + " on are in no unit";
}

Result<LayerPlan> calibrated_plan(const LayerPlan& plan, int32_t exact_layers, std::string_view codec) {
  if (plan.exact_layers == exact_layers) return plan;
  return Failure{ErrorCode::kFailedPrecondition,
                 "codec " + std::string(codec) + " was calibrated for consumers that compute the first " +
                     std::to_string(plan.exact_layers) + " layers themselves, not " + std::to_string(exact_layers)};
}

std::string to_string(const LayerPlan& plan) {
  std::string text = plan.exact_layers > 0 ? "exact " + range_text(0, plan.exact_layers) : "";
  for (const CodedUnit& unit : plan.units) {
    if (!text.empty()) text += " | ";
    text += (unit.residual ? "native " : "") + range_text(unit.first_layer, unit.layers);
  }
  return text;
}

}  // namespace scd
