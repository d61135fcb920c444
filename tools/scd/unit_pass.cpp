#include "tools/scd/unit_pass.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "common/base/check.h"
#include "common/codec/rd/rd_state.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/rms_norm.h"
#include "tools/scd/calibration.h"
#include "tools/scd/window_pass.h"

namespace scd {
namespace {

constexpr int64_t kBatchTokens = 2048;
constexpr int64_t kAligned = 32;  // columns from row to row: products are faster

}  // namespace

kernels::ConstMatrix UnitRows::x() const { return columns_of(all, 0, widths.source); }
kernels::ConstMatrix UnitRows::yh() const { return columns_of(all, widths.source, widths.target + widths.anchor); }

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

struct UnitPass::ModelRun {
  ModelRun(const Model& of, std::span<const TokenWindow> windows, int64_t sinks)
      : model(of), pass(of, windows, sinks) {}

  kernels::Matrix matrix(kernels::GrowBuffer& memory, int64_t columns) const {
    return memory.matrix(pass.rows(), columns, kernels::DType::kF32, model.device());
  }
  kernels::Matrix keep_residual(int32_t layer) {
    Kept& kept = residuals[layer];
    kept.rows = matrix(kept.memory, model.config().hidden);
    pass.copy_residual(kept.rows);
    return kept.rows;
  }

  struct Kept {
    kernels::GrowBuffer memory;
    kernels::Matrix rows;
  };
  const Model& model;
  WindowPass pass;
  std::map<int32_t, Kept> residuals;  // by layer
};

void UnitPass::run_batch(std::span<const TokenWindow> windows, const UnitVisitor& visitor) const {
  ModelRun consumer(consumer_, windows, sinks_);
  if (consumer.pass.rows() == 0) return;
  run_consumer(consumer, visitor);
  std::optional<ModelRun> other;
  if (&producer_ != &consumer_) run_producer(other.emplace(producer_, windows, sinks_));
  const ModelRun& producer = other ? *other : consumer;
  const std::vector<float> ones(static_cast<size_t>(consumer.pass.rows()), 1.0f);
  const kernels::DeviceVector ones_there(ones, consumer_.device());
  kernels::GrowBuffer memory;
  for (size_t i = 0; i < units_.size(); ++i) {
    const auto& [unit, anchor, source] = units_[i];
    const UnitWidths widths =
        widths_of(units_[i], codec_model_of(producer_.config()), codec_model_of(consumer_.config()));
    const int64_t columns = widths.source + widths.target + widths.anchor + 1;
    kernels::Matrix all = consumer.matrix(memory, (columns + kAligned - 1) / kAligned * kAligned);
    all.columns = columns;
    int64_t column = put_state(producer, {source.first_layer, source.layers, unit.residual, source.anchor}, all);
    SCD_CHECK(column == widths.source, "the width of a unit's source");
    column += put_state(consumer, {unit.first_layer, unit.layers, unit.residual, anchor},
                        columns_of(all, column, all.columns - column));
    kernels::fill_rows(columns_of(all, column, 1), ones_there);
    visitor.unit(i, {all, widths});
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

void UnitPass::run_producer(ModelRun& run) const {
  for (int32_t layer = 0; layer < producer_.config().layers; ++layer) {
    if (reads_source_residual(layer)) (void)run.keep_residual(layer);
    run.pass.run_layer();
  }
}

void UnitPass::run_consumer(ModelRun& run, const UnitVisitor& visitor) const {
  const ModelConfig& config = consumer_.config();
  const int64_t width = int64_t{config.kv_heads} * config.head_dim;
  kernels::GrowBuffer residual_memory, keys_memory, values_memory, queries_memory;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    kernels::Matrix residual;
    if (reads_residual(layer)) {
      residual = run.keep_residual(layer);
    } else if (visitor.layer) {
      residual = run.matrix(residual_memory, config.hidden);
      run.pass.copy_residual(residual);
    }
    run.pass.run_layer();
    if (!visitor.layer) continue;
    const kernels::Matrix keys = run.matrix(keys_memory, width), values = run.matrix(values_memory, width);
    const kernels::Matrix queries = run.matrix(queries_memory, int64_t{config.query_heads} * config.head_dim);
    run.pass.copy_keys_values(layer, keys, values);
    run.pass.copy_queries(queries);
    visitor.layer(layer, {keys, values, queries, residual});
  }
}

int64_t UnitPass::put_state(const ModelRun& run, const StatePlace& place, const kernels::Matrix& to) {
  const ModelConfig& config = run.model.config();
  const int64_t width = int64_t{config.kv_heads} * config.head_dim, all = width * place.layers;
  int64_t column = 0;
  if (place.residual) {
    column = config.hidden;
    kernels::divide_by_rms(run.residuals.at(place.first_layer).rows, run.residuals.at(place.anchor).rows,
                           columns_of(to, 0, column));
  } else {
    for (int32_t i = 0; i < place.layers; ++i) {
      run.pass.copy_keys_values(place.first_layer + i, columns_of(to, i * width, width),
                                columns_of(to, all + i * width, width));
    }
    column = 2 * all;
  }
  if (place.anchor < 0) return column;
  const kernels::Matrix& anchor = run.residuals.at(place.anchor).rows;
  kernels::divide_by_rms(anchor, anchor, columns_of(to, column, config.hidden));
  return column + config.hidden;
}

}  // namespace scd
