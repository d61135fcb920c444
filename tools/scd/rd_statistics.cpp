#include "tools/scd/rd_statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/rope.h"
#include "tools/scd/window_pass.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t kBatchTokens = 2048;
constexpr int kDistances = 24;
constexpr double kFarthest = 4096;

// [keys values] side by side, and a column of ones if asked for.
DenseMatrix side_by_side(const KeysValues& rows, bool with_one) {
  const int64_t width = rows.keys.columns;
  DenseMatrix joined(rows.keys.rows, 2 * width + (with_one ? 1 : 0));
  for (int64_t row = 0; row < joined.rows; ++row) {
    float* target = joined.view().row<float>(row);
    std::copy_n(rows.keys.view().row<float>(row), width, target);
    std::copy_n(rows.values.view().row<float>(row), width, target + width);
    if (with_one) target[2 * width] = 1.0f;
  }
  return joined;
}

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

// W_O as the layer applies it, [query_heads * head_dim, hidden].
MatrixXd output_weights(const Model& model, int32_t layer) {
  const int64_t width = int64_t{model.config().query_heads} * model.config().head_dim;
  DenseMatrix units(width, width), rows(width, model.config().hidden);
  for (int64_t i = 0; i < width; ++i) units.at(i, i) = 1.0f;
  model.layer(layer).output.forward(std::as_const(units).view(), rows.view());
  return Eigen::Map<const RowMajorF>(rows.values.data(), rows.rows, rows.columns).cast<double>();
}

}  // namespace

RdStatistics::RdStatistics(const Model& producer, const Model& consumer, int64_t sinks, int64_t sample_tokens)
    : producer_(producer), consumer_(consumer), sinks_(sinks), sample_tokens_(sample_tokens) {
  const ModelConfig& a = producer.config();
  const ModelConfig& b = consumer.config();
  SCD_CHECK(a.layers == b.layers && a.head_dim == b.head_dim && a.kv_heads == b.kv_heads, "models of one KV shape");
  const int64_t width = int64_t{2} * a.kv_heads * a.head_dim;
  for (int32_t layer = 0; layer < a.layers; ++layer) {
    layers_.push_back({SecondMoment(2 * width + 1),
                       std::vector<MatrixXd>(static_cast<size_t>(b.kv_heads), MatrixXd::Zero(b.head_dim, b.head_dim)),
                       0, DenseMatrix(0, width)});
  }
}

void RdStatistics::add_all(std::span<const TokenWindow> windows, const std::function<void(double)>& progress) {
  for_each_batch(windows, kBatchTokens, [&](std::span<const TokenWindow> batch, double done) {
    add(batch);
    if (progress) progress(done);
  });
}

void RdStatistics::add(std::span<const TokenWindow> windows) {
  WindowPass producer(producer_, windows, sinks_);
  std::unique_ptr<WindowPass> other;
  if (&producer_ != &consumer_) other = std::make_unique<WindowPass>(consumer_, windows, sinks_);
  WindowPass& consumer = other ? *other : producer;
  for (int32_t layer = 0; layer < producer_.config().layers; ++layer) add_layer(layer, producer, consumer);
}

void RdStatistics::add_layer(int32_t layer, WindowPass& producer, WindowPass& consumer) {
  producer.run_layer();
  if (&producer != &consumer) consumer.run_layer();
  RdLayerStatistics& statistics = layers_[static_cast<size_t>(layer)];
  const DenseMatrix x = side_by_side(producer.keys_values(layer), false);
  const DenseMatrix y = side_by_side(consumer.keys_values(layer), true);
  if (x.rows == 0) return;
  statistics.joined.add_joined(x.view(), y.view());

  const int64_t head_dim = consumer_.config().head_dim;
  const int64_t group = consumer_.config().query_heads / consumer_.config().kv_heads;
  const DenseMatrix queries = consumer.queries();
  for (int64_t head = 0; head < consumer_.config().query_heads; ++head) {
    const kernels::ConstMatrix of_head{queries.values.data() + head * head_dim, queries.rows, head_dim,
                                       queries.columns};
    SecondMoment moment(head_dim);
    moment.add(of_head);
    statistics.queries[static_cast<size_t>(head / group)] += moment.sum();
  }
  statistics.query_count += queries.rows * group;

  // Every so many tokens, so that the sample is spread over the text seen while it fills.
  const int64_t stride = std::max<int64_t>(1, x.rows / 128);
  for (int64_t row = 0; row < x.rows && statistics.sample.rows < sample_tokens_; row += stride) {
    const auto* begin = x.view().row<float>(row);
    statistics.sample.values.insert(statistics.sample.values.end(), begin, begin + x.columns);
    ++statistics.sample.rows;
  }
}

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
      const MatrixXd& moment = statistics.queries[static_cast<size_t>(head)];
      metric.keys.block(head * d, head * d, d, d) += turned.transpose() * moment * turned;
    }
  }
  const MatrixXd output = output_weights(consumer, layer);
  for (int64_t head = 0; head < config.query_heads; ++head) {
    const int64_t at = head / group * d;
    const MatrixXd rows = output.middleRows(head * d, d);
    metric.values.block(at, at, d, d) += rows * rows.transpose();
  }
  scale_to_unit_trace(metric.keys);
  scale_to_unit_trace(metric.values);
  return metric;
}

}  // namespace scd
