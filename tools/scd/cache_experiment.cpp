#include "tools/scd/cache_experiment.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <ranges>
#include <set>
#include <string>
#include <utility>

#include "common/model/forward.h"
#include "kernels/sampling.h"
#include "tools/scd/cache_pages.h"

namespace scd {
namespace {

constexpr int64_t kPrefillTokens = 512;

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

void require_same_shape(const ModelConfig& producer, const ModelConfig& consumer) {
  if (producer.layers == consumer.layers && producer.kv_heads == consumer.kv_heads &&
      producer.head_dim == consumer.head_dim) {
    return;
  }
  const auto text = [](const ModelConfig& config) {
    return std::to_string(config.layers) + " layers of " + std::to_string(config.kv_heads) + " x " +
           std::to_string(config.head_dim);
  };
  throw Error(ErrorCode::kFailedPrecondition, "the producer's cache has " + text(producer) + ", the consumer's " +
                                                  text(consumer) + "; codecs need the same shape");
}

}  // namespace

int64_t handover_tokens(int64_t prompt_tokens, int64_t suffix) {
  const int64_t available = prompt_tokens - std::max<int64_t>(suffix, 1);
  return available > 0 ? available / kPageTokens * kPageTokens : 0;
}

struct CacheExperiment::State {
  const Model& producer;
  const Model& consumer;
  const int64_t max_tokens;
  const CacheExperimentOptions options;
  SequenceCache produced;  // the producer's
  SequenceCache truth;     // the consumer's own
  SequenceCache working;   // under test
  std::vector<TokenId> prompt;
  int64_t handover = 0;
  int64_t produced_tokens = 0;                      // of the prompt, that `produced` holds
  std::map<int32_t, DenseMatrix> attention_inputs;  // of the producer, [handover, hidden], by layer

  State(const Model& of_producer, const Model& of_consumer, int64_t tokens, const CacheExperimentOptions& with)
      : producer(of_producer),
        consumer(of_consumer),
        max_tokens(tokens),
        options(with),
        produced(of_producer.config().kv_shape(of_producer.precision()), tokens),
        truth(of_consumer.config().kv_shape(of_consumer.precision()), tokens),
        working(of_consumer.config().kv_shape(of_consumer.precision()), tokens) {}

  bool same_model() const { return &producer == &consumer; }
  // The consumer's cache serves as the producer's where both are one model.
  const SequenceCache& source() const { return same_model() ? truth : produced; }

  void prefill(const Model& model, SequenceCache& into, int64_t first, bool keep_inputs);
  int64_t keep_common_prefix(std::span<const TokenId> next, const std::set<int32_t>& kept_layers);
  void rebuild_layer(const Encoder& encoder, const Decoder& decoder, const RankCaps& caps, int32_t layer,
                     RebuildAccount& account);
  kernels::ConstMatrix input_rows(int32_t layer, PositionRange range) const;
  void check_room(size_t tokens) const;
};

void CacheExperiment::State::prefill(const Model& model, SequenceCache& into, int64_t first, bool keep_inputs) {
  for (; first < handover; first += kPrefillTokens) {
    const int64_t count = std::min(kPrefillTokens, handover - first);
    const SequenceChunk chunk{&into.pages, first,
                              std::span(prompt).subspan(static_cast<size_t>(first), static_cast<size_t>(count))};
    ForwardPass pass(model, into.cache, std::span(&chunk, 1));
    for (int32_t layer = 0; layer < model.config().layers; ++layer) {
      const auto kept = keep_inputs ? attention_inputs.find(layer) : attention_inputs.end();
      pass.keep_attention_input(kept != attention_inputs.end());
      pass.run_layer();
      if (kept == attention_inputs.end()) continue;
      const kernels::ConstMatrix input = pass.attention_input();
      for (int64_t row = 0; row < count; ++row) {
        std::copy_n(input.row<float>(row), input.columns, kept->second.view().row<float>(first + row));
      }
    }
  }
}

// Questions about one context share its prefill. Takes `next` as the prompt and returns the first position that both
// caches still lack.
int64_t CacheExperiment::State::keep_common_prefix(std::span<const TokenId> next,
                                                   const std::set<int32_t>& kept_layers) {
  const auto differs = std::ranges::mismatch(prompt, next).in2;
  const int64_t before = std::exchange(handover, handover_tokens(std::ssize(next), options.suffix));
  int64_t common = std::min({int64_t{differs - next.begin()}, before, handover}) / kPageTokens * kPageTokens;
  prompt.assign(next.begin(), next.end());

  std::map<int32_t, DenseMatrix> had = std::exchange(attention_inputs, {});
  const bool same_layers = std::ranges::equal(kept_layers, had | std::views::keys);
  if (!same_layers) common = 0;
  for (const int32_t layer : kept_layers) {
    DenseMatrix rows(handover, producer.config().hidden);
    std::copy_n(had[layer].values.begin(), common * rows.columns, rows.values.begin());
    attention_inputs[layer] = std::move(rows);
  }
  return common;
}

kernels::ConstMatrix CacheExperiment::State::input_rows(int32_t layer, PositionRange range) const {
  const auto kept = attention_inputs.find(layer);
  SCD_CHECK(kept != attention_inputs.end(), "set_prompt() was told of this encoder");
  return kernels::matrix(kept->second.view().row<float>(range.first), range.count, kept->second.columns);
}

void CacheExperiment::State::rebuild_layer(const Encoder& encoder, const Decoder& decoder, const RankCaps& caps,
                                           int32_t layer, RebuildAccount& account) {
  ByteBuffer payload;
  DecodedLayer decoded;
  for (int64_t first = options.sinks; first < handover; first += options.chunk_tokens) {
    const PositionRange range{first, std::min(options.chunk_tokens, handover - first)};
    const KeysValues rows = read_rows(source().cache, source().pages, layer, range);
    LayerChunk chunk{layer, first, rows.keys.view(), rows.values.view(), {}};
    if (encoder.needs_attention_input(layer)) chunk.attention_input = input_rows(layer, range);
    payload.clear();
    auto start = std::chrono::steady_clock::now();
    encoder.encode(chunk, caps, payload);
    account.encode_ms += milliseconds_since(start);
    account.payloads += 1;
    account.payload_bytes += static_cast<int64_t>(payload.size());

    start = std::chrono::steady_clock::now();
    (void)decoder.decode({layer, first, range.count}, payload, decoded).value_or_throw();
    if (decoded.is_attention_input) {
      const SequenceChunk where{&working.pages, first, {}};
      project_keys_values(
          consumer, working.cache, layer, where,
          kernels::matrix(std::as_const(decoded.attention_input).data(), range.count, consumer.config().hidden));
    } else {
      const int64_t width = working.cache.shape().kv_width();
      write_rows(working.cache, working.pages, layer, first,
                 kernels::matrix(std::as_const(decoded.keys).data(), range.count, width),
                 kernels::matrix(std::as_const(decoded.values).data(), range.count, width));
    }
    account.decode_ms += milliseconds_since(start);
  }
}

void CacheExperiment::State::check_room(size_t tokens) const {
  if (tokens <= static_cast<size_t>(max_tokens)) return;
  throw Error(ErrorCode::kOutOfRange, "a prompt and its continuation of " + std::to_string(tokens) +
                                          " tokens exceed the " + std::to_string(max_tokens) +
                                          " this experiment has room for");
}

CacheExperiment::CacheExperiment(const Model& producer, const Model& consumer, int64_t max_tokens,
                                 CacheExperimentOptions options) {
  require_same_shape(producer.config(), consumer.config());
  SCD_CHECK(options.chunk_tokens > 0 && options.sinks >= 0 && options.suffix >= 0, "options of an experiment");
  state_ = std::make_unique<State>(producer, consumer, max_tokens, options);
}

CacheExperiment::~CacheExperiment() = default;

int64_t CacheExperiment::prompt_tokens() const { return static_cast<int64_t>(state_->prompt.size()); }
int64_t CacheExperiment::handover() const { return state_->handover; }

void CacheExperiment::set_prompt(std::span<const TokenId> prompt, std::span<const Encoder* const> encoders) {
  State& state = *state_;
  if (prompt.empty()) throw Error(ErrorCode::kInvalidArgument, "the prompt is empty");
  state.check_room(prompt.size());
  std::set<int32_t> kept_layers;
  for (int32_t layer = 0; layer < state.producer.config().layers; ++layer) {
    const auto needs = [layer](const Encoder* encoder) { return encoder->needs_attention_input(layer); };
    if (std::ranges::any_of(encoders, needs)) kept_layers.insert(layer);
  }
  const int64_t first = state.keep_common_prefix(prompt, kept_layers);
  state.prefill(state.consumer, state.truth, first, state.same_model());
  if (!state.same_model() && !encoders.empty()) {
    state.prefill(state.producer, state.produced, std::min(first, state.produced_tokens), true);
    state.produced_tokens = state.handover;
  } else {
    state.produced_tokens = 0;
  }
  use_oracle();
}

void CacheExperiment::use_oracle() {
  for (int32_t layer = 0; layer < state_->consumer.config().layers; ++layer) {
    copy_rows(state_->truth, state_->working, layer, {0, state_->handover});
  }
}

RebuildAccount CacheExperiment::rebuild(const Encoder& encoder, const Decoder& decoder, const RankCaps& caps) {
  State& state = *state_;
  RebuildAccount account;
  account.tokens = std::max<int64_t>(0, state.handover - state.options.sinks);
  for (int32_t layer = 0; layer < state.consumer.config().layers; ++layer) {
    if (layer == 0 && state.options.exact_layer0) {
      copy_rows(state.truth, state.working, layer, {0, state.handover});
      continue;
    }
    copy_rows(state.truth, state.working, layer, {0, std::min(state.options.sinks, state.handover)});
    state.rebuild_layer(encoder, decoder, caps, layer, account);
  }
  return account;
}

Continuation CacheExperiment::run(std::span<const TokenId> forced) {
  State& state = *state_;
  state.check_room(state.prompt.size() + forced.size());
  std::vector<TokenId> tokens(state.prompt.begin() + state.handover, state.prompt.end());
  tokens.insert(tokens.end(), forced.begin(), forced.end());
  const SequenceChunk chunk{&state.working.pages, state.handover, tokens};
  ForwardPass pass(state.consumer, state.working.cache, std::span(&chunk, 1));
  while (pass.next_layer() < state.consumer.config().layers) pass.run_layer();
  std::vector<int64_t> rows(tokens.size());
  std::iota(rows.begin(), rows.end(), 0);
  const kernels::ConstMatrix logits = pass.logits(rows);
  const auto* begin = logits.row<float>(0);
  return {state.handover, logits.rows, logits.columns, {begin, begin + logits.rows * logits.columns}};
}

std::vector<TokenId> CacheExperiment::generate(int32_t max_tokens, const std::function<bool(TokenId)>& ends) {
  State& state = *state_;
  state.check_room(state.prompt.size() + static_cast<size_t>(std::max(max_tokens, 0)));
  const std::vector<TokenId>& end_ids = state.consumer.config().end_of_sequence;
  std::vector<TokenId> tokens(state.prompt.begin() + state.handover, state.prompt.end());
  int64_t position = state.handover;
  std::vector<TokenId> generated;
  while (static_cast<int32_t>(generated.size()) < max_tokens) {
    const SequenceChunk chunk{&state.working.pages, position, tokens};
    const std::vector<float> logits = forward_last_logits(state.consumer, state.working.cache, std::span(&chunk, 1));
    const TokenId next = kernels::sample(logits, {}, 0.0);
    generated.push_back(next);
    if (std::find(end_ids.begin(), end_ids.end(), next) != end_ids.end() || (ends && ends(next))) break;
    position += static_cast<int64_t>(tokens.size());
    tokens.assign(1, next);
  }
  return generated;
}

}  // namespace scd
