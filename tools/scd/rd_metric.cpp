#include "tools/scd/rd_metric.h"

#include <cmath>
#include <utility>
#include <vector>

#include "common/codec/calibration/algebra.h"
#include "kernels/device.h"
#include "kernels/grow_buffer.h"
#include "kernels/rope.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int kDistances = 24;
constexpr double kFarthest = 4096;

// R^T as the kernels rotate, for one distance: row i is the i-th unit vector rotated.
MatrixXd rotation(const ModelConfig& config, int32_t distance) {
  DenseMatrix units(config.head_dim, config.head_dim);
  for (int64_t i = 0; i < units.rows; ++i) units.at(i, i) = 1.0f;
  const std::vector<int32_t> positions(static_cast<size_t>(units.rows), distance);
  kernels::rope(units.view(), config.head_dim, positions, config.rope, kernels::RopeDirection::kRotate);
  return Eigen::Map<const RowMajorF>(units.values.data(), units.rows, units.columns).cast<double>();
}

void scale_to_unit_trace(MatrixXd& metric) {
  const double trace = metric.trace();
  if (trace > 0) metric /= trace;
}

// A linear map as the layer applies it, without its bias, [inputs, outputs].
MatrixXd weights_of(const kernels::PackedLinear& linear, int64_t inputs, int64_t outputs) {
  DenseMatrix units(inputs + 1, inputs), rows(inputs + 1, outputs);  // the last row: nothing but the bias
  for (int64_t i = 0; i < inputs; ++i) units.at(i, i) = 1.0f;
  kernels::GrowBuffer units_memory, rows_memory;
  const auto there = [&](kernels::GrowBuffer& memory, const DenseMatrix& like) {
    return memory.matrix(like.rows, like.columns, kernels::DType::kF32, linear.device());
  };
  const kernels::Matrix units_there = there(units_memory, units), rows_there = there(rows_memory, rows);
  kernels::copy(std::as_const(units).view(), units_there);
  linear.forward(units_there, rows_there);
  kernels::copy(rows_there, rows.view());
  const MatrixXd all = Eigen::Map<const RowMajorF>(rows.values.data(), rows.rows, rows.columns).cast<double>();
  return all.topRows(inputs).rowwise() - all.row(inputs);
}

}  // namespace

LayerMetric metric_of(const Model& consumer, int32_t layer, const RdLayerStatistics& statistics) {
  const ModelConfig& config = consumer.config();
  const int64_t d = config.head_dim;
  const int64_t width = d * config.kv_heads;
  const int64_t group = config.query_heads / config.kv_heads;
  LayerMetric metric{MatrixXd::Zero(width, width), MatrixXd::Zero(width, width)};
  for (int step = 0; step < kDistances; ++step) {
    const auto distance = static_cast<int32_t>(std::pow(kFarthest, (step + 0.5) / kDistances));
    const MatrixXd turned = rotation(config, distance);
    for (int64_t head = 0; head < config.kv_heads; ++head) {
      const MatrixXd& moment = statistics.queries[static_cast<size_t>(head)].sum();
      metric.keys.block(head * d, head * d, d, d) += turned.transpose() * moment * turned;
    }
  }
  const MatrixXd output = weights_of(consumer.layer(layer).output, d * config.query_heads, config.hidden);
  for (int64_t head = 0; head < config.query_heads; ++head) {
    const int64_t at = head / group * d;
    const MatrixXd rows = output.middleRows(head * d, d);
    metric.values.block(at, at, d, d) += rows * rows.transpose();
  }
  scale_to_unit_trace(metric.keys);
  scale_to_unit_trace(metric.values);
  return metric;
}

MatrixXd residual_metric(const Model& consumer, const AnchoredUnit& span, std::span<const LayerMetric> layers,
                         const RdStatistics& statistics) {
  const ModelConfig& config = consumer.config();
  const int64_t queries = int64_t{config.query_heads} * config.head_dim;
  const int64_t width = int64_t{config.kv_heads} * config.head_dim;
  const auto power = [&](int32_t layer) {
    return statistics.layer(layer).residual_power / static_cast<double>(statistics.layer(layer).tokens);
  };
  const Algebra algebra(consumer.device());
  MatrixXd metric = MatrixXd::Zero(config.hidden, config.hidden);
  for (int32_t layer = span.unit.first_layer; layer < span.unit.end(); ++layer) {
    const MatrixXd all = weights_of(consumer.layer(layer).qkv, config.hidden, queries + 2 * width);
    const std::vector<float> norm = consumer.layer(layer).attention_norm.on_host();
    const Eigen::VectorXd scale = Eigen::Map<const Eigen::VectorXf>(norm.data(), config.hidden).cast<double>();
    const MatrixXd keys = scale.asDiagonal() * all.middleCols(queries, width);
    const MatrixXd values = scale.asDiagonal() * all.middleCols(queries + width, width);
    const LayerMetric& of = layers[static_cast<size_t>(layer)];
    metric += power(span.anchor) / power(layer) *
              (algebra.product_with_transposed(algebra.product(keys, of.keys), keys) +
               algebra.product_with_transposed(algebra.product(values, of.values), values));
  }
  return metric;
}

}  // namespace scd
