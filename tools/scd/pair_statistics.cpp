#include "tools/scd/pair_statistics.h"

#include <algorithm>
#include <utility>

#include "tools/scd/window_pass.h"

namespace scd {
namespace {

kernels::ConstMatrix per_head(const DenseMatrix& rows, int64_t head_dim) {
  return kernels::matrix(rows.values.data(), rows.rows * (rows.columns / head_dim), head_dim);
}

struct OneModelsRows {
  DenseMatrix keys, values, inputs;
};

OneModelsRows rows_of(const WindowPass& pass, int32_t layer, const ModelConfig& config) {
  const int64_t rows = pass.rows(), width = int64_t{config.kv_heads} * config.head_dim;
  OneModelsRows of{DenseMatrix(rows, width), DenseMatrix(rows, width), DenseMatrix(rows, config.hidden)};
  pass.copy_keys_values(layer, of.keys.view(), of.values.view());
  pass.copy_attention_inputs(of.inputs.view());
  return of;
}

}  // namespace

PairStatistics::PairStatistics(const Model& producer, const Model& consumer, const PairStatisticsOptions& options)
    : producer_(producer), consumer_(consumer), options_(options) {
  const ModelConfig& a = producer.config();
  const ModelConfig& b = consumer.config();
  SCD_CHECK(a.layers == b.layers && a.head_dim == b.head_dim && a.kv_heads == b.kv_heads, "models of one KV shape");
  for (int32_t layer = 0; layer < a.layers; ++layer) {
    layers_.push_back(
        {SecondMoment(2 * a.head_dim), SecondMoment(2 * a.head_dim),
         PairReservoir(options.reservoir_tokens, a.hidden, b.hidden, options.seed + static_cast<uint64_t>(layer))});
  }
}

void PairStatistics::add_layer(int32_t layer, WindowPass& producer, WindowPass& consumer) {
  producer.run_layer();
  const bool one_model = &producer == &consumer;
  if (!one_model) consumer.run_layer();
  if (producer.rows() == 0) return;
  const OneModelsRows a = rows_of(producer, layer, producer_.config());
  const OneModelsRows b = one_model ? OneModelsRows{} : rows_of(consumer, layer, consumer_.config());
  const OneModelsRows& own = one_model ? a : b;
  LayerStatistics& statistics = layers_[static_cast<size_t>(layer)];
  const int64_t head_dim = producer_.config().head_dim;
  statistics.keys.add_joined(per_head(a.keys, head_dim), per_head(own.keys, head_dim));
  statistics.values.add_joined(per_head(a.values, head_dim), per_head(own.values, head_dim));
  statistics.attention.add(a.inputs.view(), own.inputs.view());
}

void PairStatistics::add(std::span<const TokenWindow> windows) {
  WindowPass producer(producer_, windows, options_.sinks);
  std::unique_ptr<WindowPass> other;
  if (&producer_ != &consumer_) other = std::make_unique<WindowPass>(consumer_, windows, options_.sinks);
  WindowPass& consumer = other ? *other : producer;
  for (int32_t layer = 0; layer < producer_.config().layers; ++layer) add_layer(layer, producer, consumer);
  for (const TokenWindow& window : windows) tokens_ += static_cast<int64_t>(window.size());
}

void add_all(PairStatistics& statistics, std::span<const TokenWindow> windows, int64_t batch_tokens,
             const std::function<void(double)>& progress) {
  for_each_batch(windows, batch_tokens, [&](std::span<const TokenWindow> batch, double done) {
    statistics.add(batch);
    if (progress) progress(done);
  });
}

}  // namespace scd
