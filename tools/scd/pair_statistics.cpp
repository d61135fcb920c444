#include "tools/scd/pair_statistics.h"

#include <algorithm>
#include <utility>

#include "common/codec/key_rotation.h"
#include "common/model/forward.h"

namespace scd {
namespace {

// Rows of one matrix below those of another.
void append_rows(DenseMatrix& all, kernels::ConstMatrix rows) {
  all.columns = rows.columns;
  for (int64_t r = 0; r < rows.rows; ++r) {
    all.values.insert(all.values.end(), rows.row<float>(r), rows.row<float>(r) + rows.columns);
  }
  all.rows += rows.rows;
}

kernels::ConstMatrix per_head(const DenseMatrix& rows, int64_t head_dim) {
  return kernels::matrix(rows.values.data(), rows.rows * (rows.columns / head_dim), head_dim);
}

}  // namespace

// One model's run over a batch of windows.
struct PairStatistics::Side {
  Side(const Model& of_model, std::span<const TokenWindow> of_windows, int64_t sinks)
      : model(of_model), windows(of_windows), skipped(sinks), cache(make_cache(of_model, of_windows)) {
    for (const TokenWindow& window : windows) {
      pages.push_back(cache.pool().make_table());
      (void)pages.back().reserve(static_cast<int64_t>(window.size())).value_or_throw();
    }
    for (size_t i = 0; i < windows.size(); ++i) batch.push_back({&pages[i], 0, windows[i]});
    pass = std::make_unique<ForwardPass>(model, cache, batch);
    pass->keep_attention_input(true);
  }

  static KvCache make_cache(const Model& model, std::span<const TokenWindow> windows) {
    int32_t page_count = 0;
    for (const TokenWindow& window : windows) {
      page_count += static_cast<int32_t>((window.size() + kPageTokens - 1) / kPageTokens);
    }
    return {model.config().kv_shape(model.precision()), page_count};
  }

  // Keys without RoPE, values and attention inputs of the coded positions of all windows.
  void collect(int32_t layer, KeysValues& rows, DenseMatrix& inputs) const {
    const ModelConfig& config = model.config();
    const kernels::ConstMatrix all_inputs = pass->attention_input();
    int64_t first_row = 0;
    for (size_t i = 0; i < windows.size(); ++i) {
      const auto tokens = static_cast<int64_t>(windows[i].size());
      const int64_t count = tokens - skipped;
      if (count > 0) {
        KeysValues window = read_rows(cache, pages[i], layer, {skipped, count});
        rotate_chunk(window.keys.view(), config.head_dim, skipped, config.rope, kernels::RopeDirection::kUnrotate);
        append_rows(rows.keys, window.keys.view());
        append_rows(rows.values, window.values.view());
        append_rows(inputs, kernels::matrix(all_inputs.row<float>(first_row + skipped), count, all_inputs.columns));
      }
      first_row += tokens;
    }
  }

  const Model& model;
  std::span<const TokenWindow> windows;
  int64_t skipped;
  KvCache cache;
  std::vector<PageTable> pages;
  std::vector<SequenceChunk> batch;
  std::unique_ptr<ForwardPass> pass;
};

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

void PairStatistics::add_layer(int32_t layer, Side& producer, Side& consumer) {
  producer.pass->run_layer();
  KeysValues a, b;
  DenseMatrix inputs_a, inputs_b;
  producer.collect(layer, a, inputs_a);
  const bool one_model = &producer == &consumer;
  if (!one_model) {
    consumer.pass->run_layer();
    consumer.collect(layer, b, inputs_b);
  }
  const KeysValues& own = one_model ? a : b;
  const DenseMatrix& own_inputs = one_model ? inputs_a : inputs_b;
  if (inputs_a.rows == 0) return;
  LayerStatistics& statistics = layers_[static_cast<size_t>(layer)];
  const int64_t head_dim = producer_.config().head_dim;
  statistics.keys.add_joined(per_head(a.keys, head_dim), per_head(own.keys, head_dim));
  statistics.values.add_joined(per_head(a.values, head_dim), per_head(own.values, head_dim));
  statistics.attention.add(std::as_const(inputs_a).view(), own_inputs.view());
}

void PairStatistics::add(std::span<const TokenWindow> windows) {
  Side producer(producer_, windows, options_.sinks);
  std::unique_ptr<Side> other;
  if (&producer_ != &consumer_) other = std::make_unique<Side>(consumer_, windows, options_.sinks);
  Side& consumer = other ? *other : producer;
  for (int32_t layer = 0; layer < producer_.config().layers; ++layer) add_layer(layer, producer, consumer);
  for (const TokenWindow& window : windows) tokens_ += static_cast<int64_t>(window.size());
}

void add_all(PairStatistics& statistics, std::span<const TokenWindow> windows, int64_t batch_tokens,
             const std::function<void(double)>& progress) {
  size_t first = 0;
  while (first < windows.size()) {
    size_t last = first;
    int64_t tokens = 0;
    while (last < windows.size() &&
           (last == first || tokens + static_cast<int64_t>(windows[last].size()) <= batch_tokens)) {
      tokens += static_cast<int64_t>(windows[last++].size());
    }
    statistics.add(windows.subspan(first, last - first));
    first = last;
    if (progress) progress(static_cast<double>(first) / static_cast<double>(windows.size()));
  }
}

}  // namespace scd
