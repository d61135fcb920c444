// One forward pass over a ragged batch, one layer at a time: the caller decides when each layer runs, so that a
// producer can encode a layer while the next computes, and a consumer can run its suffix as rebuilt layers arrive.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/token.h"
#include "common/kv/kv_cache.h"
#include "common/model/model.h"

namespace scd {

class Adapter;

// Tokens of one sequence that this pass computes: prefill chunk, suffix or a single decode token.
struct SequenceChunk {
  const PageTable* pages = nullptr;  // covers first_position + tokens.size() positions
  int64_t first_position = 0;        // positions before it are in the cache already
  std::span<const TokenId> tokens;
  const Adapter* adapter = nullptr;  // whose terms are added; null: the model as it was loaded
};

// Not thread-safe; all passes of a daemon run on its one compute thread. References must outlive the pass.
class ForwardPass {
 public:
  ForwardPass(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch);
  // Begins before `first_layer` with this residual stream, [rows, hidden] F32, which is copied.
  ForwardPass(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch, int32_t first_layer,
              kernels::ConstMatrix residual);
  ~ForwardPass();
  ForwardPass(const ForwardPass&) = delete;
  ForwardPass& operator=(const ForwardPass&) = delete;

  int64_t rows() const;
  int32_t next_layer() const;

  // Computes the next layer: K and V of the rows are in the cache afterwards.
  void run_layer();

  // Only K and V of the next layer, without its output: the pass ends here (used for layer 0 from token ids alone).
  void run_keys_values_only();

  // Of the layer that ran last: the RMS-normalised input of its attention, [rows, hidden] F32; filled only when asked
  // for before the layer runs.
  void keep_attention_input(bool keep);
  kernels::ConstMatrix attention_input() const;
  kernels::ConstMatrix attention_input_on_device() const;  // the same on the model's device

  // Of the layer that ran last: its queries after RoPE, [rows, query_heads * head_dim] F32 on the model's device. Until
  // the next layer runs.
  kernels::ConstMatrix queries_on_device() const;

  // The residual stream before the next layer, [rows, hidden] F32.
  kernels::ConstMatrix hidden_state() const;
  kernels::ConstMatrix hidden_state_on_device() const;  // the same on the model's device; until the next layer runs

  // After the last layer: logits of the chosen rows, [chosen, vocab] F32 row-major, owned by the pass, on the host or
  // left on the model's device, where the caller may change them. What the pass gives on the host is valid until the
  // next such call.
  kernels::ConstMatrix logits(std::span<const int64_t> chosen_rows);
  kernels::Matrix logits_on_device(std::span<const int64_t> chosen_rows);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Runs all layers and returns the logits of each sequence's last token, [sequences, vocab].
std::vector<float> forward_last_logits(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch);

// K (after RoPE) and V of `layer` from given normalised attention inputs [rows, hidden] F32, written to the cache at
// [first_position, first_position + rows): how Patch rebuilds a layer.
void project_keys_values(const Model& model, KvCache& cache, int32_t layer, const SequenceChunk& where,
                         kernels::ConstMatrix attention_input);

}  // namespace scd
