#include "tools/scd/rd_metric.h"

#include <cmath>
#include <utility>
#include <vector>

#include "common/codec/calibration/algebra.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/linear.h"
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
DenseMatrix weights_of(const kernels::PackedLinear& linear, int64_t inputs, int64_t outputs) {
  kernels::GrowBuffer units_memory, rows_memory, here_memory;
  const auto f32 = [](kernels::GrowBuffer& memory, int64_t rows, int64_t columns, kernels::Device device) {
    return memory.matrix(rows, columns, kernels::DType::kF32, device);
  };
  const kernels::Matrix units = f32(units_memory, inputs + 1, inputs, linear.device());
  const kernels::Matrix rows = f32(rows_memory, inputs + 1, outputs, linear.device());
  const kernels::Matrix here = f32(here_memory, inputs + 1, outputs, kernels::Device::kCpu);
  const kernels::Matrix diagonal{units.data, inputs, 1, inputs + 1, units.dtype, units.device};
  const kernels::DeviceVector ones(std::vector<float>(static_cast<size_t>(inputs), 1.0f), linear.device());
  kernels::clear(units);  // the last row stays: nothing but the bias
  kernels::fill_rows(diagonal, ones);
  linear.forward(units, rows);
  kernels::copy(rows, here);
  DenseMatrix weights(inputs, outputs);
  const float* bias = here.row<float>(inputs);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < inputs; ++row) {
    const float* from = here.row<float>(row);
    float* to = weights.view().row<float>(row);
    for (int64_t column = 0; column < outputs; ++column) to[column] = from[column] - bias[column];
  }
  return weights;
}

Eigen::Map<const RowMajorF> mapped(const DenseMatrix& matrix) {
  return {matrix.values.data(), matrix.rows, matrix.columns};
}

}  // namespace

LayerMetric metric_of(const Model& consumer, int32_t layer, const RdLayerStatistics& statistics) {
  const ModelConfig& config = consumer.config();
  const int64_t d = config.head_dim;
  const int64_t width = d * config.kv_heads;
  const int64_t group = config.query_heads / config.kv_heads;
  LayerMetric metric{MatrixXd::Zero(width, width), MatrixXd::Zero(width, width)};
  std::vector<MatrixXd> moments(static_cast<size_t>(config.kv_heads), MatrixXd::Zero(d, d));  // of any query of a head
  for (size_t head = 0; head < moments.size(); ++head) {
    const MatrixXd& joined = statistics.queries[head].sum();
    for (int64_t query = 0; query < group; ++query) moments[head] += joined.block(query * d, query * d, d, d);
  }
  for (int step = 0; step < kDistances; ++step) {
    const auto distance = static_cast<int32_t>(std::pow(kFarthest, (step + 0.5) / kDistances));
    const MatrixXd turned = rotation(config, distance);
    for (int64_t head = 0; head < config.kv_heads; ++head) {
      metric.keys.block(head * d, head * d, d, d) += turned.transpose() * moments[static_cast<size_t>(head)] * turned;
    }
  }
  const DenseMatrix output = weights_of(consumer.layer(layer).output, d * config.query_heads, config.hidden);
  DenseMatrix of_head(d, d);
  for (int64_t head = 0; head < config.query_heads; ++head) {
    const int64_t at = head / group * d;
    const kernels::ConstMatrix rows = kernels::matrix(output.view().row<float>(head * d), d, output.columns);
    kernels::gemm_f32({.a = rows, .b = rows, .c = of_head.view(), .transpose_b = true});
    metric.values.block(at, at, d, d) += mapped(of_head).cast<double>();
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
    const MatrixXd all =
        mapped(weights_of(consumer.layer(layer).qkv, config.hidden, queries + 2 * width)).cast<double>();
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
