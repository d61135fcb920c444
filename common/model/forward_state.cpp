#include "common/model/forward_state.h"

#include <algorithm>

#include "common/base/check.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/rms_norm.h"

namespace scd {

namespace {

// q/k norm and RoPE over [q | k | v]; K and V go into the cache.
void finish_keys_values(const Model& model, int32_t layer, const kernels::Matrix& qkv,
                        const kernels::RaggedBatch& batch, KvCache& cache) {
  const ModelConfig& config = model.config();
  const LayerWeights& weights = model.layer(layer);
  const QkvWidths widths(config);
  if (config.qk_norm) {
    kernels::rms_norm_heads(columns_of(qkv, 0, widths.query), config.head_dim, weights.query_norm, config.rms_epsilon);
    kernels::rms_norm_heads(columns_of(qkv, widths.query, widths.kv), config.head_dim, weights.key_norm,
                            config.rms_epsilon);
  }
  kernels::rope_write_kv(cache.layer(layer), batch.sequences(), batch.positions(), config.rope, qkv);
}

}  // namespace

void ForwardState::begin(const Model& of_model, KvCache& in_cache, std::span<const SequenceChunk> chunks) {
  model = &of_model;
  cache = &in_cache;
  next_layer = 0;
  ended = keep_input = input_kept = false;
  tokens.clear();
  sequences_.clear();
  runs_.clear();
  for (const SequenceChunk& chunk : chunks) {
    const auto count = static_cast<int64_t>(chunk.tokens.size());
    SCD_CHECK(chunk.pages != nullptr && count > 0 && chunk.first_position >= 0, "a chunk has pages and tokens");
    const auto held = static_cast<int64_t>(chunk.pages->page_ids().size()) * in_cache.pool().page_tokens();
    SCD_CHECK(chunk.first_position + count <= held, "the page table covers the chunk");
    sequences_.push_back({chunk.pages->page_ids(), static_cast<int64_t>(tokens.size()), count, chunk.first_position});
    tokens.insert(tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
    runs_.push_back({chunk.adapter, count});
  }
  SCD_CHECK(!tokens.empty(), "a pass has tokens");
  if (batch.device() != model->device()) batch = kernels::RaggedBatch(model->device());
  batch.assign(tokens, sequences_);
  adapters_.assign(runs_, model->device(), for_any_adapter);
  residual = rows_of(residual_memory_, model->config().hidden, kernels::DType::kF32);
}

kernels::Matrix ForwardState::rows_of(kernels::GrowBuffer& memory, int64_t columns, kernels::DType dtype) const {
  return memory.matrix(batch.rows(), columns, dtype, model->device());
}

void ForwardState::embed() { kernels::embedding(model->embedding_table(), batch.ids(), residual); }

void ForwardState::start_from(int32_t layer, kernels::ConstMatrix from) {
  SCD_CHECK(layer >= 0 && layer < model->config().layers, "a layer of the model");
  SCD_CHECK(from.rows == residual.rows && from.columns == residual.columns, "a residual stream of the chunk's tokens");
  kernels::copy(from, residual);
  next_layer = layer;
}

// The input of the next layer's attention, in the weights' precision or as kept.
kernels::ConstMatrix ForwardState::attention_norm() {
  const ModelConfig& config = model->config();
  kernels::Matrix normed;
  if (keep_input) {
    normed = kept = rows_of(kept_memory_, config.hidden, kernels::DType::kF32);
  } else {
    normed = rows_of(normed_memory_, config.hidden, model->precision());
  }
  input_kept = keep_input;
  kernels::rms_norm(residual, model->layer(next_layer).attention_norm, config.rms_epsilon, normed);
  return normed;
}

kernels::Matrix ForwardState::project_qkv(const kernels::ConstMatrix& normed) {
  const int64_t width = QkvWidths(model->config()).all();
  const kernels::Matrix qkv = last_qkv = rows_of(qkv_memory_, width, kernels::DType::kF32);
  model->layer(next_layer).qkv.forward(normed, qkv);
  adapters_.add(next_layer, AdaptedLinear::kQkv, normed, qkv);
  finish_keys_values(*model, next_layer, qkv, batch, *cache);
  return qkv;
}

void ForwardState::attend(const kernels::Matrix& qkv) {
  const ModelConfig& config = model->config();
  const int64_t query_width = QkvWidths(config).query;
  const kernels::Matrix mixed = rows_of(attention_memory_, query_width, model->precision());
  const bool windowed = next_layer >= config.first_window_layer;
  kernels::paged_attention({.queries = columns_of(qkv, 0, query_width),
                            .output = mixed,
                            .kv = cache->layer(next_layer),
                            .sequences = batch.sequences(),
                            .query_heads = config.query_heads,
                            .scale = config.attention_scale(),
                            .sliding_window = windowed ? config.sliding_window : 0});
  model->layer(next_layer).output.forward(mixed, residual, /*accumulate=*/true);
  adapters_.add(next_layer, AdaptedLinear::kOutput, mixed, residual);
}

void ForwardState::feed_forward() {
  const ModelConfig& config = model->config();
  const LayerWeights& weights = model->layer(next_layer);
  const kernels::Matrix normed = rows_of(normed_memory_, config.hidden, model->precision());
  kernels::rms_norm(residual, weights.feed_forward_norm, config.rms_epsilon, normed);
  // On a GPU it is the widest traffic of a layer: half as much in BF16.
  const bool narrow = model->device() == kernels::Device::kGpu;
  const kernels::Matrix gate_up =
      rows_of(gate_up_memory_, 2 * int64_t{config.intermediate}, narrow ? model->precision() : kernels::DType::kF32);
  weights.gate_up.forward(normed, gate_up);
  adapters_.add(next_layer, AdaptedLinear::kGateUp, normed, gate_up);
  const kernels::Matrix activation = rows_of(activation_memory_, config.intermediate, model->precision());
  kernels::silu_mul(gate_up, activation);
  weights.down.forward(activation, residual, /*accumulate=*/true);
  adapters_.add(next_layer, AdaptedLinear::kDown, activation, residual);
}

void ForwardState::run_layer() {
  SCD_CHECK(!ended && next_layer < model->config().layers, "the pass has a layer left");
  attend(project_qkv(attention_norm()));
  feed_forward();
  ++next_layer;
}

void ForwardState::run_keys_values_only() {
  SCD_CHECK(!ended && next_layer < model->config().layers, "the pass has a layer left");
  project_qkv(attention_norm());
  ++next_layer;
  ended = true;
}

kernels::Matrix ForwardState::logits(std::span<const int64_t> chosen_rows) {
  const ModelConfig& config = model->config();
  SCD_CHECK(!ended && next_layer == config.layers, "every layer ran");
  const auto chosen = static_cast<int64_t>(chosen_rows.size());
  SCD_CHECK(chosen > 0, "logits of at least one row");
  const kernels::Matrix normed = normed_memory_.matrix(chosen, config.hidden, model->precision(), model->device());
  // Neighbouring rows together.
  for (int64_t i = 0, count = 0; i < chosen; i += count) {
    const int64_t row = chosen_rows[static_cast<size_t>(i)];
    for (count = 1; i + count < chosen && chosen_rows[static_cast<size_t>(i + count)] == row + count;) ++count;
    SCD_CHECK(row >= 0 && row + count <= residual.rows, "rows of this pass");
    const auto row_bytes = static_cast<size_t>(config.hidden) * kernels::size_of(normed.dtype);
    kernels::Matrix from = residual, to = normed;
    from.data = residual.row<float>(row);
    to.data = static_cast<std::byte*>(normed.data) + static_cast<size_t>(i) * row_bytes;
    from.rows = to.rows = count;
    kernels::rms_norm(from, model->final_norm(), config.rms_epsilon, to);
  }
  const kernels::Matrix logits = logits_memory_.matrix(chosen, config.vocab, kernels::DType::kF32, model->device());
  model->lm_head().forward(normed, logits);
  if (!config.tied_embeddings) adapters_.add_to_logits(chosen_rows, normed, logits);
  return logits;
}

void ForwardState::reserve(const Model& of_model, const KvCache& of_cache, int64_t sequences) {
  model = &of_model;
  const ModelConfig& config = of_model.config();
  if (batch.device() != of_model.device()) batch = kernels::RaggedBatch(of_model.device());
  const auto of = [&](kernels::GrowBuffer& memory, int64_t columns) {
    memory.matrix(sequences, columns, kernels::DType::kF32, of_model.device());
  };
  of(residual_memory_, config.hidden);
  of(normed_memory_, config.hidden);
  of(qkv_memory_, QkvWidths(config).all());
  of(attention_memory_, QkvWidths(config).query);
  of(gate_up_memory_, 2 * int64_t{config.intermediate});
  of(activation_memory_, config.intermediate);
  of(logits_memory_, config.vocab);
  const PagePool& pool = of_cache.pool();
  batch.reserve(sequences, sequences, std::min(pool.pages(), pool.pages_for(config.max_positions)));
}

void project_keys_values(const Model& model, KvCache& cache, int32_t layer, const SequenceChunk& where,
                         kernels::ConstMatrix attention_input) {
  SCD_CHECK(layer >= 0 && layer < model.config().layers, "a layer of the model");
  SCD_CHECK(where.pages != nullptr && attention_input.columns == model.config().hidden, "inputs of the attention");
  thread_local kernels::GrowBuffer memory, input_memory;
  thread_local kernels::RaggedBatch batch;
  thread_local AdapterRows adapters;
  if (batch.device() != model.device()) batch = kernels::RaggedBatch(model.device());
  const kernels::SequenceRows rows{where.pages->page_ids(), 0, attention_input.rows, where.first_position};
  batch.assign({}, std::span(&rows, 1));
  if (attention_input.device != model.device()) {
    const kernels::Matrix there =
        input_memory.matrix(attention_input.rows, attention_input.columns, attention_input.dtype, model.device());
    kernels::copy(attention_input, there);
    attention_input = there;
  }
  const kernels::Matrix qkv =
      memory.matrix(attention_input.rows, QkvWidths(model.config()).all(), kernels::DType::kF32, model.device());
  model.layer(layer).qkv.forward(attention_input, qkv);
  const AdapterRun run{where.adapter, attention_input.rows};
  adapters.assign(std::span(&run, 1), model.device());
  adapters.add(layer, AdaptedLinear::kQkv, attention_input, qkv);
  finish_keys_values(model, layer, qkv, batch, cache);
}

}  // namespace scd
