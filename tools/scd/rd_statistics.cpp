#include "tools/scd/rd_statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/codec/model_difference.h"
#include "common/codec/rd/rd_state.h"
#include "tools/scd/calibration.h"
#include "tools/scd/window_pass.h"

namespace scd {
namespace {

constexpr int64_t kBatchTokens = 2048;

DenseMatrix with_ones(const DenseMatrix& rows) {
  DenseMatrix ones(rows.rows, 1);
  std::ranges::fill(ones.values, 1.0f);
  return side_by_side(rows.view(), std::as_const(ones).view());
}

double mean_variance(kernels::ConstMatrix rows) {
  const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> values(
      rows.row<float>(0), rows.rows, rows.columns);
  const auto centred = values.rowwise() - values.colwise().mean();
  return static_cast<double>(centred.squaredNorm()) / static_cast<double>(rows.rows * rows.columns);
}

}  // namespace

std::vector<AnchoredUnit> anchored_units(const LayerPlan& plan, ModelDepths depths) {
  std::vector<AnchoredUnit> units;
  for (size_t i = 0; i < plan.units.size(); ++i) {
    units.push_back({plan.units[i], plan.anchor_of(i), source_of(plan, i, depths)});
  }
  return units;
}

RdStatistics::RdStatistics(const Model& producer, const Model& consumer, std::span<const LayerPlan> plans,
                           int64_t sinks, int64_t sample_tokens)
    : producer_(producer), consumer_(consumer), sinks_(sinks), sample_tokens_(sample_tokens) {
  const ModelConfig& b = consumer.config();
  for (int32_t layer = 0; layer < b.layers; ++layer) {
    layers_.push_back(
        {std::vector<Eigen::MatrixXd>(static_cast<size_t>(b.kv_heads), Eigen::MatrixXd::Zero(b.head_dim, b.head_dim))});
  }
  const CodecModel source = codec_model_of(producer.config());
  const CodecModel target = codec_model_of(consumer.config());
  for (const LayerPlan& plan : plans) {
    for (const AnchoredUnit& of : anchored_units(plan, depths())) {
      if (std::ranges::find(units_, of, &RdUnitStatistics::of) != units_.end()) continue;
      const bool anchored = of.anchor >= 0;
      const int64_t x = rd_source_width(source, of.unit, of.source) + (anchored ? source.hidden : 0);
      const int64_t y = rd_state_width(target, of.unit);
      units_.push_back({of, SecondMoment(x + y + (anchored ? target.hidden : 0) + 1), DenseMatrix(0, x), x, y});
    }
  }
}

void RdStatistics::add_all(std::span<const TokenWindow> windows, const std::function<void(double)>& progress) {
  for_each_batch(windows, kBatchTokens, [&](std::span<const TokenWindow> batch, double done) {
    add(batch);
    if (progress) progress(done);
  });
}

const RdUnitStatistics& RdStatistics::unit(const AnchoredUnit& of) const {
  const auto found = std::ranges::find(units_, of, &RdUnitStatistics::of);
  SCD_CHECK(found != units_.end(), "a unit of the plans");
  return *found;
}

bool RdStatistics::reads_residual(int32_t layer) const {
  return std::ranges::any_of(units_, [layer](const RdUnitStatistics& statistics) {
    const AnchoredUnit& of = statistics.of;
    return of.anchor == layer || (of.unit.residual && of.unit.first_layer == layer);
  });
}

bool RdStatistics::reads_source_residual(int32_t layer) const {
  return std::ranges::any_of(units_, [layer](const RdUnitStatistics& statistics) {
    const AnchoredUnit& of = statistics.of;
    return of.source.anchor == layer || (of.unit.residual && of.source.first_layer == layer);
  });
}

void RdStatistics::add(std::span<const TokenWindow> windows) {
  const ModelRows b = run_consumer(windows);
  if (b.layers.front().keys.rows == 0) return;
  if (&producer_ == &consumer_) {
    for (RdUnitStatistics& unit : units_) add_unit(unit, b, b);
    return;
  }
  const ModelRows a = run_producer(windows);
  for (RdUnitStatistics& unit : units_) add_unit(unit, a, b);
}

RdStatistics::ModelRows RdStatistics::run_producer(std::span<const TokenWindow> windows) const {
  WindowPass pass(producer_, windows, sinks_);
  ModelRows rows;
  for (int32_t layer = 0; layer < producer_.config().layers; ++layer) {
    if (reads_source_residual(layer)) rows.residuals[layer] = pass.residual();
    pass.run_layer();
    rows.layers.push_back(pass.keys_values(layer));
  }
  return rows;
}

RdStatistics::ModelRows RdStatistics::run_consumer(std::span<const TokenWindow> windows) {
  WindowPass pass(consumer_, windows, sinks_);
  ModelRows rows;
  for (int32_t layer = 0; layer < consumer_.config().layers; ++layer) {
    const DenseMatrix residual = pass.residual();
    if (reads_residual(layer)) rows.residuals[layer] = residual;
    pass.run_layer();
    rows.layers.push_back(pass.keys_values(layer));
    if (residual.rows > 0) add_layer(layer, rows.layers.back(), pass.queries(), residual);
  }
  return rows;
}

void RdStatistics::add_layer(int32_t layer, const KeysValues& rows, const DenseMatrix& queries,
                             const DenseMatrix& residual) {
  RdLayerStatistics& statistics = layers_[static_cast<size_t>(layer)];
  const int64_t head_dim = consumer_.config().head_dim;
  const int64_t group = consumer_.config().query_heads / consumer_.config().kv_heads;
  for (int64_t head = 0; head < consumer_.config().query_heads; ++head) {
    const kernels::ConstMatrix of_head{queries.values.data() + head * head_dim, queries.rows, head_dim,
                                       queries.columns};
    SecondMoment moment(head_dim);
    moment.add(of_head);
    statistics.queries[static_cast<size_t>(head / group)] += moment.sum();
  }
  // Of each batch by itself: that its mean is not the text's is of no weight here.
  const auto before = static_cast<double>(statistics.tokens), more = static_cast<double>(rows.keys.rows);
  const auto blend = [&](double& mean, double of_batch) { mean = (mean * before + of_batch * more) / (before + more); };
  blend(statistics.key_variance, mean_variance(rows.keys.view()));
  blend(statistics.value_variance, mean_variance(rows.values.view()));
  for (int64_t row = 0; row < residual.rows; ++row) {
    statistics.residual_power +=
        std::pow(double{root_mean_square(residual.view().row<float>(row), residual.columns)}, 2);
  }
  statistics.tokens += rows.keys.rows;
}

// As rd_maps.h puts it together, with the anchor behind.
DenseMatrix RdStatistics::state_of(const ModelRows& rows, const StatePlace& place) {
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

void RdStatistics::add_unit(RdUnitStatistics& statistics, const ModelRows& producer, const ModelRows& consumer) const {
  const auto& [unit, anchor, source] = statistics.of;
  const DenseMatrix x = state_of(producer, {source.first_layer, source.layers, unit.residual, source.anchor});
  const DenseMatrix y = state_of(consumer, {unit.first_layer, unit.layers, unit.residual, anchor});
  statistics.joined.add_joined(x.view(), with_ones(y).view());

  // Every so many tokens, so that the sample is spread over the text seen while it fills.
  DenseMatrix& sample = statistics.sample;
  const int64_t stride = std::max<int64_t>(1, x.rows / 128);
  for (int64_t row = 0; row < x.rows && sample.rows < sample_tokens_; row += stride) {
    const auto* begin = x.view().row<float>(row);
    sample.values.insert(sample.values.end(), begin, begin + x.columns);
    ++sample.rows;
  }
}

}  // namespace scd
