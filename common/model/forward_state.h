// What a forward pass computes with, and its steps: shared by passes that callers drive layer by layer and by decode
// steps. Lives as long as its memory is worth keeping.
#pragma once

#include <span>
#include <vector>

#include "common/model/adapter_rows.h"
#include "common/model/forward.h"
#include "kernels/grow_buffer.h"
#include "kernels/ragged_batch.h"

namespace scd {

// Columns of queries, and of keys or values, in a layer's fused projection.
struct QkvWidths {
  explicit QkvWidths(const ModelConfig& config)
      : query(int64_t{config.query_heads} * config.head_dim), kv(int64_t{config.kv_heads} * config.head_dim) {}
  int64_t query;
  int64_t kv;
  int64_t all() const { return query + 2 * kv; }
};

class ForwardState {
 public:
  // Memory for batches of single tokens up to this size, of contexts as long as model and cache allow: it does not move
  // while they stay within.
  void reserve(const Model& of_model, const KvCache& of_cache, int64_t sequences);
  // The same for recordings of steps with adapters.
  void reserve_adapters(int64_t sequences) { adapters_.reserve(sequences, model->device()); }
  void begin(const Model& of_model, KvCache& in_cache, std::span<const SequenceChunk> chunks);
  // The tokens of the chunks are placeholders for those that were sampled, a row each.
  void take_tokens(const kernels::SampledRows& sampled) { batch.take_ids(sampled); }
  void embed();
  void start_from(int32_t layer, kernels::ConstMatrix from);
  void run_layer();
  void run_keys_values_only();
  // Of the chosen rows after the last layer, [chosen, vocab] F32 on the model's device.
  kernels::Matrix logits(std::span<const int64_t> chosen_rows);

  const Model* model = nullptr;
  KvCache* cache = nullptr;
  int32_t next_layer = 0;
  bool for_any_adapter = false;  // the next pass is recorded, and its recording serves all adapters
  bool ended = false;            // run_keys_values_only() leaves no residual stream to go on from
  bool keep_input = false;
  bool input_kept = false;
  std::vector<TokenId> tokens;
  kernels::RaggedBatch batch;
  kernels::Matrix residual;  // [rows, hidden] F32
  kernels::Matrix kept;      // [rows, hidden] F32
  kernels::Matrix last_qkv;  // of the layer that ran last

 private:
  kernels::Matrix rows_of(kernels::GrowBuffer& memory, int64_t columns, kernels::DType dtype) const;
  kernels::ConstMatrix attention_norm();
  kernels::Matrix project_qkv(const kernels::ConstMatrix& normed);
  void attend(const kernels::Matrix& qkv);
  void feed_forward();

  std::vector<kernels::SequenceRows> sequences_;
  std::vector<AdapterRun> runs_;
  AdapterRows adapters_;
  kernels::GrowBuffer residual_memory_, kept_memory_, normed_memory_, qkv_memory_, attention_memory_, gate_up_memory_,
      activation_memory_, logits_memory_;
};

}  // namespace scd
