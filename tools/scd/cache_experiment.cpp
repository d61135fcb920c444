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
#include "common/model/native_layers.h"
#include "common/rebuild/plan_rebuild.h"
#include "tools/scd/cache_pages.h"

namespace scd {
namespace {

constexpr int64_t kPrefillTokens = 512;

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// What no cache holds and an encoder may need of a layer of the producer.
enum class HiddenState { kAttentionInput, kResidual };
using StateName = std::pair<int32_t, HiddenState>;

std::set<StateName> states_of(std::span<const Encoder* const> encoders, int32_t layers) {
  std::set<StateName> names;
  for (const Encoder* encoder : encoders) {
    for (int32_t layer = 0; layer < layers; ++layer) {
      if (encoder->needs_attention_input(layer)) names.emplace(layer, HiddenState::kAttentionInput);
      if (encoder->needs_residual(layer)) names.emplace(layer, HiddenState::kResidual);
    }
  }
  return names;
}

void copy_matrix(kernels::ConstMatrix from, DenseMatrix& to, int64_t first_row) {
  for (int64_t row = 0; row < from.rows; ++row) {
    std::copy_n(from.row<float>(row), from.columns, to.view().row<float>(first_row + row));
  }
}

// Keys and values of consecutive layers, side by side.
KeysValues unit_rows(const SequenceCache& from, const UnitSource& unit, PositionRange range) {
  KeysValues joined{DenseMatrix(range.count, 0), DenseMatrix(range.count, 0)};
  for (int32_t layer = unit.first_layer; layer < unit.end(); ++layer) {
    KeysValues rows = read_rows(from.cache, from.pages, layer, range);
    if (unit.layers == 1) return rows;
    joined.keys = side_by_side(std::as_const(joined.keys).view(), rows.keys.view());
    joined.values = side_by_side(std::as_const(joined.values).view(), rows.values.view());
  }
  return joined;
}

// How many first tokens all prompts share.
int64_t common_tokens(std::span<const std::vector<TokenId>> prompts) {
  const std::vector<TokenId>& first = prompts.front();
  auto end = first.begin() + std::ssize(first);
  for (const std::vector<TokenId>& other : prompts.subspan(1)) {
    end = std::min(end, std::ranges::mismatch(first, other).in1);
  }
  return end - first.begin();
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
  SequenceCache produced;       // the producer's
  SequenceCache truth;          // the consumer's own
  PromptBatch working;          // under test
  std::vector<TokenId> prompt;  // the first of them: all are alike in the hand-over
  int64_t handover = 0;
  int64_t produced_tokens = 0;            // of the prompt, that `produced` holds
  std::map<StateName, DenseMatrix> kept;  // of the producer, [handover, hidden]

  State(const Model& of_producer, const Model& of_consumer, int64_t tokens, const CacheExperimentOptions& with)
      : producer(of_producer),
        consumer(of_consumer),
        max_tokens(tokens),
        options(with),
        produced(of_producer.config().kv_shape(of_producer.precision()), tokens, of_producer.device()),
        truth(of_consumer.config().kv_shape(of_consumer.precision()), tokens, of_consumer.device()),
        working(of_consumer, tokens) {}

  bool same_model() const { return &producer == &consumer; }
  // The consumer's cache serves as the producer's where both are one model.
  const SequenceCache& source() const { return same_model() ? truth : produced; }

  void prefill(const Model& model, SequenceCache& into, int64_t first, bool keep);
  int64_t keep_common_prefix(std::span<const std::vector<TokenId>> next, const std::set<StateName>& wanted);
  void take_truth(int32_t layer, int64_t tokens);
  ByteBuffer encode(const Encoder& encoder, const LayerPlan& plan, size_t unit, PositionRange range,
                    const RankCaps& caps) const;
  kernels::ConstMatrix kept_rows(int32_t layer, HiddenState state, PositionRange range) const;
  NativeLayers run_exact_layers(const LayerPlan& plan, const Decoder& decoder);
};

void CacheExperiment::State::prefill(const Model& model, SequenceCache& into, int64_t first, bool keep) {
  for (; first < handover; first += kPrefillTokens) {
    const int64_t count = std::min(kPrefillTokens, handover - first);
    const SequenceChunk chunk{&into.pages, first,
                              std::span(prompt).subspan(static_cast<size_t>(first), static_cast<size_t>(count))};
    ForwardPass pass(model, into.cache, std::span(&chunk, 1));
    for (int32_t layer = 0; layer < model.config().layers; ++layer) {
      const auto input = keep ? kept.find({layer, HiddenState::kAttentionInput}) : kept.end();
      const auto residual = keep ? kept.find({layer, HiddenState::kResidual}) : kept.end();
      if (residual != kept.end()) copy_matrix(pass.hidden_state(), residual->second, first);
      pass.keep_attention_input(input != kept.end());
      pass.run_layer();
      if (input != kept.end()) copy_matrix(pass.attention_input(), input->second, first);
    }
  }
}

// Prompts about one context share its prefill. Takes `next` as the prompts and returns the first position that both
// caches still lack.
int64_t CacheExperiment::State::keep_common_prefix(std::span<const std::vector<TokenId>> next,
                                                   const std::set<StateName>& wanted) {
  const auto differs = std::ranges::mismatch(prompt, next.front()).in2;
  const int64_t before = handover;
  handover = common_tokens(next) / kPageTokens * kPageTokens;
  for (const std::vector<TokenId>& of : next) {
    handover = std::min(handover, handover_tokens(std::ssize(of), options.suffix));
  }
  int64_t common = std::min({int64_t{differs - next.front().begin()}, before, handover}) / kPageTokens * kPageTokens;
  prompt = next.front();

  std::map<StateName, DenseMatrix> had = std::exchange(kept, {});
  if (!std::ranges::equal(wanted, had | std::views::keys)) common = 0;
  for (const StateName& name : wanted) {
    DenseMatrix rows(handover, producer.config().hidden);
    std::copy_n(had[name].values.begin(), common * rows.columns, rows.values.begin());
    kept[name] = std::move(rows);
  }
  return common;
}

kernels::ConstMatrix CacheExperiment::State::kept_rows(int32_t layer, HiddenState state, PositionRange range) const {
  const auto rows = kept.find({layer, state});
  SCD_CHECK(rows != kept.end(), "set_prompt() was told of this encoder");
  return kernels::matrix(rows->second.view().row<float>(range.first), range.count, rows->second.columns);
}

ByteBuffer CacheExperiment::State::encode(const Encoder& encoder, const LayerPlan& plan, size_t unit,
                                          PositionRange range, const RankCaps& caps) const {
  const CodedUnit& coded = plan.units[unit];
  const UnitSource of = encoder.source(plan, unit);
  LayerChunk chunk{.layer = coded.first_layer, .first_position = range.first};
  KeysValues rows;
  std::vector<kernels::PagedKv> layers;
  if (coded.residual) {
    chunk.residual = kept_rows(of.first_layer, HiddenState::kResidual, range);
  } else if (encoder.reads_pages()) {
    for (int32_t layer = of.first_layer; layer < of.end(); ++layer) layers.push_back(source().cache.layer(layer));
    chunk.pages = {layers, source().pages.page_ids(), range.count};
  } else {
    rows = unit_rows(source(), of, range);
    chunk.keys = rows.keys.view();
    chunk.values = rows.values.view();
  }
  if (encoder.needs_attention_input(coded.first_layer)) {
    chunk.attention_input = kept_rows(coded.first_layer, HiddenState::kAttentionInput, range);
  }
  if (of.anchor >= 0 && encoder.needs_residual(of.anchor)) {
    chunk.anchor = kept_rows(of.anchor, HiddenState::kResidual, range);
  }
  ByteBuffer payload;
  encoder.encode(chunk, caps, payload);
  return payload;
}

// Those that a codec predicts from run again, for their residual stream; for others their keys and values are known.
NativeLayers CacheExperiment::State::run_exact_layers(const LayerPlan& plan, const Decoder& decoder) {
  const bool keep_anchor = plan.exact_layers > 0 && decoder.needs_anchor(plan.exact_layers - 1);
  NativeLayers exact({.model = consumer,
                      .cache = working.cache(),
                      .pages = working.pages(),
                      .tokens = std::span(prompt).first(static_cast<size_t>(handover)),
                      .first_token = std::min(options.sinks, handover),
                      .first_layer = 0,
                      .layers = std::max(plan.exact_layers, 1),
                      .keep_anchor = keep_anchor});
  while (keep_anchor && exact.done_tokens() < handover) {
    exact.begin(std::min(kPrefillTokens, handover - exact.done_tokens()));
    exact.run_chunk();
  }
  return exact;
}

void CacheExperiment::State::take_truth(int32_t layer, int64_t tokens) {
  copy_rows(truth.cache, truth.pages, working.cache(), working.pages(), layer, {0, tokens});
}

CacheExperiment::CacheExperiment(const Model& producer, const Model& consumer, int64_t max_tokens,
                                 CacheExperimentOptions options) {
  SCD_CHECK(options.chunk_tokens > 0 && options.sinks >= 0 && options.suffix >= 0, "options of an experiment");
  state_ = std::make_unique<State>(producer, consumer, max_tokens, options);
}

CacheExperiment::~CacheExperiment() = default;

int64_t CacheExperiment::max_tokens() const { return state_->max_tokens; }
int64_t CacheExperiment::prompt_tokens(size_t prompt) const { return std::ssize(state_->working.prompts()[prompt]); }
int64_t CacheExperiment::handover() const { return state_->handover; }

void CacheExperiment::set_prompts(std::vector<std::vector<TokenId>> prompts, std::span<const Encoder* const> encoders) {
  State& state = *state_;
  for (const std::vector<TokenId>& prompt : prompts) {
    if (prompt.empty()) throw Error(ErrorCode::kInvalidArgument, "the prompt is empty");
    state.working.check_room(prompt.size());
  }
  const int64_t first = state.keep_common_prefix(prompts, states_of(encoders, state.producer.config().layers));
  state.working.set_prompts(std::move(prompts), state.handover);
  state.prefill(state.consumer, state.truth, first, state.same_model());
  if (!state.same_model() && !encoders.empty()) {
    state.prefill(state.producer, state.produced, std::min(first, state.produced_tokens), true);
    state.produced_tokens = state.handover;
  } else {
    state.produced_tokens = 0;
  }
  use_oracle();
}

void CacheExperiment::set_prompt(std::span<const TokenId> prompt, std::span<const Encoder* const> encoders) {
  set_prompts({{prompt.begin(), prompt.end()}}, encoders);
}

void CacheExperiment::use_oracle() {
  for (int32_t layer = 0; layer < state_->consumer.config().layers; ++layer) {
    state_->take_truth(layer, state_->handover);
  }
  state_->working.cache_changed();
}

RebuildAccount CacheExperiment::rebuild(const Encoder& encoder, const Decoder& decoder, const RankCaps& caps) {
  State& state = *state_;
  const int32_t exact_layers = decoder.calibrated_exact_layers().value_or(state.options.exact_layer0 ? 1 : 0);
  const LayerPlan plan = encoder.plan(exact_layers).value_or_throw();
  const int64_t sinks = std::min(state.options.sinks, state.handover);
  for (int32_t layer = 0; layer < state.consumer.config().layers; ++layer) {
    state.take_truth(layer, layer < exact_layers ? state.handover : sinks);
  }
  RebuildAccount account;
  account.tokens = std::max<int64_t>(0, state.handover - state.options.sinks);
  using Clock = std::chrono::steady_clock;
  auto start = Clock::now();
  const NativeLayers exact = state.run_exact_layers(plan, decoder);
  account.native_ms += milliseconds_since(start);
  PlanRebuild rebuild({.model = state.consumer,
                       .cache = state.working.cache(),
                       .pages = state.working.pages(),
                       .tokens = std::span(state.prompt).first(static_cast<size_t>(state.handover)),
                       .exact_tokens = sinks,
                       .plan = plan,
                       .decoder = decoder,
                       .exact_layers = &exact});
  for (int64_t first = sinks; first < state.handover; first += state.options.chunk_tokens) {
    const PositionRange range{first, std::min(state.options.chunk_tokens, state.handover - first)};
    for (size_t unit = 0; unit < plan.units.size(); ++unit) {
      start = Clock::now();
      const ByteBuffer payload = state.encode(encoder, plan, unit, range, caps);
      account.encode_ms += milliseconds_since(start);
      account.payloads += 1;
      account.payload_bytes += static_cast<int64_t>(payload.size());
      start = Clock::now();
      (void)rebuild.apply(plan.units[unit].first_layer, first, range.count, payload).value_or_throw();
      account.decode_ms += milliseconds_since(start);
      start = Clock::now();
      while (rebuild.running()) rebuild.run_layer();
      account.native_ms += milliseconds_since(start);
    }
  }
  state.working.cache_changed();
  return account;
}

Continuation CacheExperiment::run(std::span<const TokenId> forced) {
  const std::vector<TokenId> tokens(forced.begin(), forced.end());
  return std::move(run_all(std::span(&tokens, 1)).front());
}

std::vector<Continuation> CacheExperiment::run_all(std::span<const std::vector<TokenId>> forced,
                                                   std::span<const int64_t> last) {
  return state_->working.run(forced, last);
}

std::vector<TokenId> CacheExperiment::generate(int32_t max_tokens, const std::function<bool(TokenId)>& ends) {
  return std::move(generate_all(max_tokens, ends).front());
}

std::vector<std::vector<TokenId>> CacheExperiment::generate_all(int32_t max_tokens,
                                                                const std::function<bool(TokenId)>& ends) {
  return state_->working.generate(max_tokens, ends);
}

}  // namespace scd
