#include "common/model/forward.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/model/grow_buffer.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace scd {
namespace {

kernels::Matrix columns_of(const kernels::Matrix& matrix, int64_t first, int64_t count) {
  return {matrix.row<float>(0) + first, matrix.rows, count, matrix.row_stride};
}

struct QkvWidths {
  explicit QkvWidths(const ModelConfig& config)
      : query(int64_t{config.query_heads} * config.head_dim), kv(int64_t{config.kv_heads} * config.head_dim) {}
  int64_t query;
  int64_t kv;
  int64_t all() const { return query + 2 * kv; }
};

void fill_positions(std::vector<int32_t>& positions, int64_t first, int64_t count) {
  for (int64_t i = 0; i < count; ++i) positions.push_back(static_cast<int32_t>(first + i));
}

// q/k norm and RoPE in place over [q | k | v], then K and V into the cache.
void finish_keys_values(const Model& model, int32_t layer, const kernels::Matrix& qkv,
                        std::span<const int32_t> positions, KvCache& cache,
                        std::span<const kernels::SequenceRows> sequences) {
  const ModelConfig& config = model.config();
  const LayerWeights& weights = model.layer(layer);
  const QkvWidths widths(config);
  if (config.qk_norm) {
    kernels::rms_norm_heads(columns_of(qkv, 0, widths.query), config.head_dim, weights.query_norm, config.rms_epsilon);
    kernels::rms_norm_heads(columns_of(qkv, widths.query, widths.kv), config.head_dim, weights.key_norm,
                            config.rms_epsilon);
  }
  kernels::rope(columns_of(qkv, 0, widths.query + widths.kv), config.head_dim, positions, config.rope,
                kernels::RopeDirection::kRotate);
  kernels::write_kv(cache.layer(layer), sequences, columns_of(qkv, widths.query, widths.kv),
                    columns_of(qkv, widths.query + widths.kv, widths.kv));
}

}  // namespace

struct ForwardPass::State {
  const Model* model = nullptr;
  KvCache* cache = nullptr;
  int32_t next_layer = 0;
  bool ended = false;  // run_keys_values_only() leaves no residual stream to go on from
  bool keep_input = false;
  bool input_kept = false;
  std::vector<TokenId> tokens;
  std::vector<int32_t> positions;
  std::vector<kernels::SequenceRows> sequences;
  kernels::Matrix residual;  // [rows, hidden] F32
  kernels::Matrix kept;      // [rows, hidden] F32
  kernels::Matrix last_qkv;  // of the layer that ran last
  GrowBuffer residual_memory, kept_memory, normed_memory, qkv_memory, attention_memory, gate_up_memory,
      activation_memory, logits_memory;

  void begin(const Model& of_model, KvCache& in_cache, std::span<const SequenceChunk> batch);
  void embed();
  void start_from(int32_t layer, kernels::ConstMatrix from);
  kernels::ConstMatrix attention_norm();
  kernels::Matrix project_qkv(const kernels::ConstMatrix& normed);
  void attend(const kernels::Matrix& qkv);
  void feed_forward();

  // Passes of a thread hand their memory on, so that steady decoding allocates nothing.
  static std::vector<std::unique_ptr<State>>& idle() {
    thread_local std::vector<std::unique_ptr<State>> states;
    return states;
  }
  static std::unique_ptr<State> take();
};

void ForwardPass::State::begin(const Model& of_model, KvCache& in_cache, std::span<const SequenceChunk> batch) {
  model = &of_model;
  cache = &in_cache;
  next_layer = 0;
  ended = keep_input = input_kept = false;
  tokens.clear();
  positions.clear();
  sequences.clear();
  for (const SequenceChunk& chunk : batch) {
    const auto count = static_cast<int64_t>(chunk.tokens.size());
    SCD_CHECK(chunk.pages != nullptr && count > 0 && chunk.first_position >= 0, "a chunk has pages and tokens");
    const auto held = static_cast<int64_t>(chunk.pages->page_ids().size()) * in_cache.pool().page_tokens();
    SCD_CHECK(chunk.first_position + count <= held, "the page table covers the chunk");
    sequences.push_back({chunk.pages->page_ids(), static_cast<int64_t>(tokens.size()), count, chunk.first_position});
    tokens.insert(tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
    fill_positions(positions, chunk.first_position, count);
  }
  SCD_CHECK(!tokens.empty(), "a pass has tokens");
  residual = residual_memory.matrix(static_cast<int64_t>(tokens.size()), model->config().hidden);
}

void ForwardPass::State::embed() { kernels::embedding(model->embedding_table(), tokens, residual); }

void ForwardPass::State::start_from(int32_t layer, kernels::ConstMatrix from) {
  SCD_CHECK(layer >= 0 && layer < model->config().layers, "a layer of the model");
  SCD_CHECK(from.rows == residual.rows && from.columns == residual.columns, "a residual stream of the chunk's tokens");
  for (int64_t row = 0; row < from.rows; ++row) {
    std::copy_n(from.row<float>(row), from.columns, residual.row<float>(row));
  }
  next_layer = layer;
}

// The input of the next layer's attention, in the weights' precision or as kept.
kernels::ConstMatrix ForwardPass::State::attention_norm() {
  const ModelConfig& config = model->config();
  kernels::Matrix normed;
  if (keep_input) {
    normed = kept = kept_memory.matrix(residual.rows, config.hidden);
  } else {
    normed = normed_memory.matrix(residual.rows, config.hidden, model->precision());
  }
  input_kept = keep_input;
  kernels::rms_norm(residual, model->layer(next_layer).attention_norm, config.rms_epsilon, normed);
  return normed;
}

kernels::Matrix ForwardPass::State::project_qkv(const kernels::ConstMatrix& normed) {
  const kernels::Matrix qkv = last_qkv = qkv_memory.matrix(normed.rows, QkvWidths(model->config()).all());
  model->layer(next_layer).qkv.forward(normed, qkv);
  finish_keys_values(*model, next_layer, qkv, positions, *cache, sequences);
  return qkv;
}

void ForwardPass::State::attend(const kernels::Matrix& qkv) {
  const ModelConfig& config = model->config();
  const int64_t query_width = QkvWidths(config).query;
  const kernels::Matrix mixed = attention_memory.matrix(qkv.rows, query_width, model->precision());
  const bool windowed = next_layer >= config.first_window_layer;
  kernels::paged_attention({.queries = columns_of(qkv, 0, query_width),
                            .output = mixed,
                            .kv = cache->layer(next_layer),
                            .sequences = sequences,
                            .query_heads = config.query_heads,
                            .scale = config.attention_scale(),
                            .sliding_window = windowed ? config.sliding_window : 0});
  model->layer(next_layer).output.forward(mixed, residual, /*accumulate=*/true);
}

void ForwardPass::State::feed_forward() {
  const ModelConfig& config = model->config();
  const LayerWeights& weights = model->layer(next_layer);
  const kernels::Matrix normed = normed_memory.matrix(residual.rows, config.hidden, model->precision());
  kernels::rms_norm(residual, weights.feed_forward_norm, config.rms_epsilon, normed);
  const kernels::Matrix gate_up = gate_up_memory.matrix(residual.rows, 2 * int64_t{config.intermediate});
  weights.gate_up.forward(normed, gate_up);
  const kernels::Matrix activation = activation_memory.matrix(residual.rows, config.intermediate, model->precision());
  kernels::silu_mul(gate_up, activation);
  weights.down.forward(activation, residual, /*accumulate=*/true);
}

std::unique_ptr<ForwardPass::State> ForwardPass::State::take() {
  if (idle().empty()) return std::make_unique<State>();
  std::unique_ptr<State> state = std::move(idle().back());
  idle().pop_back();
  return state;
}

ForwardPass::ForwardPass(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch)
    : state_(State::take()) {
  state_->begin(model, cache, batch);
  state_->embed();
}

ForwardPass::ForwardPass(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch, int32_t first_layer,
                         kernels::ConstMatrix residual)
    : state_(State::take()) {
  state_->begin(model, cache, batch);
  state_->start_from(first_layer, residual);
}

ForwardPass::~ForwardPass() {
  if (state_) State::idle().push_back(std::move(state_));
}

int64_t ForwardPass::rows() const { return static_cast<int64_t>(state_->tokens.size()); }

int32_t ForwardPass::next_layer() const { return state_->next_layer; }

void ForwardPass::run_layer() {
  State& state = *state_;
  SCD_CHECK(!state.ended && state.next_layer < state.model->config().layers, "the pass has a layer left");
  state.attend(state.project_qkv(state.attention_norm()));
  state.feed_forward();
  ++state.next_layer;
}

void ForwardPass::run_keys_values_only() {
  State& state = *state_;
  SCD_CHECK(!state.ended && state.next_layer < state.model->config().layers, "the pass has a layer left");
  state.project_qkv(state.attention_norm());
  ++state.next_layer;
  state.ended = true;
}

void ForwardPass::keep_attention_input(bool keep) { state_->keep_input = keep; }

kernels::ConstMatrix ForwardPass::attention_input() const {
  SCD_CHECK(state_->input_kept, "keep_attention_input(true) came before the layer");
  return state_->kept;
}

kernels::ConstMatrix ForwardPass::queries() const {
  SCD_CHECK(state_->next_layer > 0, "a layer ran");
  return columns_of(state_->last_qkv, 0, QkvWidths(state_->model->config()).query);
}

kernels::ConstMatrix ForwardPass::hidden_state() const {
  SCD_CHECK(!state_->ended, "the pass went on after its last layer's keys");
  return state_->residual;
}

kernels::ConstMatrix ForwardPass::logits(std::span<const int64_t> chosen_rows) {
  State& state = *state_;
  const ModelConfig& config = state.model->config();
  SCD_CHECK(!state.ended && state.next_layer == config.layers, "every layer ran");
  const auto chosen = static_cast<int64_t>(chosen_rows.size());
  SCD_CHECK(chosen > 0, "logits of at least one row");
  const kernels::Matrix normed = state.normed_memory.matrix(chosen, config.hidden, state.model->precision());
  for (int64_t i = 0; i < chosen; ++i) {
    const int64_t row = chosen_rows[static_cast<size_t>(i)];
    SCD_CHECK(row >= 0 && row < state.residual.rows, "a row of this pass");
    const auto row_bytes = static_cast<size_t>(config.hidden) * kernels::size_of(normed.dtype);
    kernels::rms_norm(kernels::matrix(static_cast<const float*>(state.residual.row<float>(row)), 1, config.hidden),
                      state.model->final_norm(), config.rms_epsilon,
                      {static_cast<std::byte*>(normed.data) + static_cast<size_t>(i) * row_bytes, 1, config.hidden,
                       config.hidden, normed.dtype});
  }
  const kernels::Matrix logits = state.logits_memory.matrix(chosen, config.vocab);
  state.model->lm_head().forward(normed, logits);
  return logits;
}

std::vector<float> forward_last_logits(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch) {
  ForwardPass pass(model, cache, batch);
  while (pass.next_layer() < model.config().layers) pass.run_layer();
  std::vector<int64_t> last;
  int64_t rows = 0;
  for (const SequenceChunk& chunk : batch) last.push_back((rows += static_cast<int64_t>(chunk.tokens.size())) - 1);
  const auto logits = pass.logits(last);
  const auto* begin = logits.row<float>(0);
  return {begin, begin + logits.rows * logits.columns};
}

void project_keys_values(const Model& model, KvCache& cache, int32_t layer, const SequenceChunk& where,
                         kernels::ConstMatrix attention_input) {
  SCD_CHECK(layer >= 0 && layer < model.config().layers, "a layer of the model");
  SCD_CHECK(where.pages != nullptr && attention_input.columns == model.config().hidden, "inputs of the attention");
  thread_local GrowBuffer memory;
  thread_local std::vector<int32_t> positions;
  positions.clear();
  fill_positions(positions, where.first_position, attention_input.rows);
  const kernels::Matrix qkv = memory.matrix(attention_input.rows, QkvWidths(model.config()).all());
  model.layer(layer).qkv.forward(attention_input, qkv);
  const kernels::SequenceRows rows{where.pages->page_ids(), 0, attention_input.rows, where.first_position};
  finish_keys_values(model, layer, qkv, positions, cache, std::span(&rows, 1));
}

}  // namespace scd
