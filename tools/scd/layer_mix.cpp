#include "tools/scd/layer_mix.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include "common/model/forward.h"
#include "common/rebuild/decoded_rows.h"
#include "tools/scd/cache_pages.h"

namespace scd {
namespace {

// One cache for all windows, a table a window. Same shapes and windows give the same page ids in every cache.
struct BatchCache {
  KvCache cache;
  std::vector<PageTable> pages;

  BatchCache(const Model& model, std::span<const TokenWindow> windows)
      : cache(model.config().kv_shape(model.precision()), page_count(windows), model.device()) {
    for (const TokenWindow& window : windows) {
      pages.push_back(cache.pool().make_table());
      (void)pages.back().reserve(static_cast<int64_t>(window.size())).value_or_throw();
    }
  }

  static int32_t page_count(std::span<const TokenWindow> windows) {
    int32_t pages = 0;
    for (const TokenWindow& window : windows) {
      pages += static_cast<int32_t>((window.size() + kPageTokens - 1) / kPageTokens);
    }
    return pages;
  }
};

}  // namespace

struct LayerMix::State {
  const Model& producer;
  const Model& consumer;
  const CacheExperimentOptions options;
  std::vector<TokenWindow> windows;
  std::vector<int64_t> scored;  // by window: its last tokens that count
  BatchCache produced, truth, reuse, patch, working;
  std::vector<std::optional<LayerSource>> in_working;  // by layer
  Continuation truth_logits;                           // of all windows' last tokens

  State(const Model& of_producer, const Model& of_consumer, std::vector<TokenWindow> kept,
        std::vector<int64_t> kept_scored, const CacheExperimentOptions& with)
      : producer(of_producer),
        consumer(of_consumer),
        options(with),
        windows(std::move(kept)),
        scored(std::move(kept_scored)),
        produced(of_producer, windows),
        truth(of_consumer, windows),
        reuse(of_consumer, windows),
        patch(of_consumer, windows),
        working(of_consumer, windows),
        in_working(static_cast<size_t>(of_consumer.config().layers)) {}

  int64_t handover(size_t window) const {
    return handover_tokens(static_cast<int64_t>(windows[window].size()), options.suffix);
  }
  void prefill(const Model& model, BatchCache& into) const;
  void use(int32_t layer, LayerSource source);
  // Calls use(logits) with those of the tokens that count, on the host.
  void run_suffixes(const std::function<void(kernels::ConstMatrix)>& use);
  void rebuild_window(size_t window, const Encoder& encoder, const Decoder& decoder, std::span<const int32_t> layers,
                      BatchCache& into);
  void rebuild_chunk(size_t window, const LayerChunk& chunk, const Encoder& encoder, const Decoder& decoder,
                     BatchCache& into);
};

void LayerMix::State::prefill(const Model& model, BatchCache& into) const {
  for (size_t i = 0; i < windows.size(); ++i) {
    const SequenceChunk chunk{&into.pages[i], 0, std::span(windows[i]).first(static_cast<size_t>(handover(i)))};
    ForwardPass pass(model, into.cache, std::span(&chunk, 1));
    while (pass.next_layer() < model.config().layers) pass.run_layer();
  }
}

void LayerMix::State::use(int32_t layer, LayerSource source) {
  auto& current = in_working[static_cast<size_t>(layer)];
  if (current == source) return;
  const BatchCache& from = source == LayerSource::kTruth ? truth : source == LayerSource::kReuse ? reuse : patch;
  for (size_t i = 0; i < windows.size(); ++i) {
    copy_rows(from.cache, from.pages[i], working.cache, working.pages[i], layer, {0, handover(i)});
  }
  current = source;
}

void LayerMix::State::run_suffixes(const std::function<void(kernels::ConstMatrix)>& use) {
  std::vector<SequenceChunk> batch;
  for (size_t i = 0; i < windows.size(); ++i) {
    batch.push_back({&working.pages[i], handover(i), std::span(windows[i]).subspan(static_cast<size_t>(handover(i)))});
  }
  ForwardPass pass(consumer, working.cache, batch);
  while (pass.next_layer() < consumer.config().layers) pass.run_layer();
  std::vector<int64_t> rows;
  int64_t end = 0;
  for (size_t i = 0; i < windows.size(); ++i) {
    end += std::ssize(batch[i].tokens);
    for (int64_t row = end - scored[i]; row < end; ++row) rows.push_back(row);
  }
  use(pass.logits(rows));
}

void LayerMix::State::rebuild_chunk(size_t window, const LayerChunk& chunk, const Encoder& encoder,
                                    const Decoder& decoder, BatchCache& into) {
  ByteBuffer payload;
  encoder.encode(chunk, {}, payload);
  DecodedLayer decoded;
  (void)decoder.decode({chunk.layer, chunk.first_position, chunk.keys.rows}, payload, decoded).value_or_throw();
  write_decoded(consumer, into.cache, {into.pages[window], chunk.layer, chunk.first_position}, decoded);
}

void LayerMix::State::rebuild_window(size_t window, const Encoder& encoder, const Decoder& decoder,
                                     std::span<const int32_t> layers, BatchCache& into) {
  const int64_t end = handover(window);
  // Patch needs the producer's attention inputs, which no cache holds: the producer runs again, up to the last of them.
  const bool run_again =
      std::any_of(layers.begin(), layers.end(), [&](int32_t layer) { return encoder.needs_attention_input(layer); });
  std::optional<ForwardPass> pass;
  const SequenceChunk chunk{&produced.pages[window], 0, std::span(windows[window]).first(static_cast<size_t>(end))};
  if (run_again) {
    pass.emplace(producer, produced.cache, std::span(&chunk, 1));
    pass->keep_attention_input(true);
  }
  for (const int32_t layer : layers) {
    while (pass && pass->next_layer() <= layer) pass->run_layer();
    const int64_t sinks = std::min(options.sinks, end);
    const KeysValues exact = read_rows(truth.cache, truth.pages[window], layer, {0, sinks});
    if (sinks > 0) write_rows(into.cache, into.pages[window], layer, 0, exact.keys.view(), exact.values.view());
    for (int64_t first = sinks; first < end; first += options.chunk_tokens) {
      const int64_t count = std::min(options.chunk_tokens, end - first);
      const KeysValues rows = read_rows(produced.cache, produced.pages[window], layer, {first, count});
      LayerChunk source{
          .layer = layer, .first_position = first, .keys = rows.keys.view(), .values = rows.values.view()};
      if (pass) {
        const kernels::ConstMatrix inputs = pass->attention_input();
        source.attention_input = kernels::matrix(inputs.row<float>(first), count, inputs.columns);
      }
      rebuild_chunk(window, source, encoder, decoder, into);
    }
  }
}

LayerMix::LayerMix(const Model& producer, const Model& consumer, std::span<const TokenWindow> windows,
                   const CacheExperimentOptions& options, std::span<const int64_t> scored) {
  SCD_CHECK(scored.empty() || scored.size() == windows.size(), "scored tokens of every window");
  std::vector<TokenWindow> kept;
  std::vector<int64_t> kept_scored;
  for (size_t i = 0; i < windows.size(); ++i) {
    const int64_t tokens = std::ssize(windows[i]), handover = handover_tokens(tokens, options.suffix);
    if (handover <= options.sinks) continue;
    kept.push_back(windows[i]);
    kept_scored.push_back(scored.empty() ? tokens - handover : std::min(scored[i], tokens - handover));
  }
  if (kept.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "every held-out text is shorter than " + std::to_string(options.sinks) +
                                                 " sinks and a suffix of " + std::to_string(options.suffix) +
                                                 " tokens leave room for");
  }
  state_ = std::make_unique<State>(producer, consumer, std::move(kept), std::move(kept_scored), options);
  state_->prefill(producer, state_->produced);
  state_->prefill(consumer, state_->truth);
  for (int32_t layer = 0; layer < consumer.config().layers; ++layer) state_->use(layer, LayerSource::kTruth);
  state_->run_suffixes([this](kernels::ConstMatrix logits) {
    const auto* begin = logits.row<float>(0);
    state_->truth_logits = {0, logits.rows, logits.columns, {begin, begin + logits.rows * logits.columns}};
  });
}

LayerMix::~LayerMix() = default;

void LayerMix::rebuild(LayerSource kept_as, const Encoder& encoder, const Decoder& decoder,
                       std::span<const int32_t> layers) {
  SCD_CHECK(kept_as != LayerSource::kTruth, "the truth is not rebuilt");
  BatchCache& into = kept_as == LayerSource::kReuse ? state_->reuse : state_->patch;
  for (size_t i = 0; i < state_->windows.size(); ++i) state_->rebuild_window(i, encoder, decoder, layers, into);
  for (auto& current : state_->in_working) {
    if (current == kept_as) current.reset();
  }
}

double LayerMix::mean_kl(std::span<const LayerSource> sources) {
  SCD_CHECK(sources.size() == state_->in_working.size(), "a source for every layer");
  for (int32_t layer = 0; layer < static_cast<int32_t>(sources.size()); ++layer) {
    const bool exact = layer == 0 && state_->options.exact_layer0;
    state_->use(layer, exact ? LayerSource::kTruth : sources[static_cast<size_t>(layer)]);
  }
  std::vector<double> kl;
  state_->run_suffixes([&](kernels::ConstMatrix logits) { kl = kl_divergence(state_->truth_logits, logits); });
  return std::accumulate(kl.begin(), kl.end(), 0.0) / static_cast<double>(kl.size());
}

int64_t LayerMix::handed_over_tokens() const {
  int64_t tokens = 0;
  for (size_t i = 0; i < state_->windows.size(); ++i) {
    tokens += std::max<int64_t>(0, state_->handover(i) - state_->options.sinks);
  }
  return tokens;
}

int64_t LayerMix::windows() const { return static_cast<int64_t>(state_->windows.size()); }

}  // namespace scd
