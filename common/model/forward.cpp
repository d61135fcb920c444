#include "common/model/forward.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/base/check.h"
#include "common/model/forward_state.h"

namespace scd {
namespace {

// What callers read on the host.
kernels::ConstMatrix on_host(const kernels::ConstMatrix& matrix, kernels::GrowBuffer& memory) {
  if (matrix.device == kernels::Device::kCpu) return matrix;
  const kernels::Matrix here = memory.matrix(matrix.rows, matrix.columns, matrix.dtype);
  kernels::copy(matrix, here);
  return here;
}

}  // namespace

struct ForwardPass::State : ForwardState {
  int64_t most_rows = 0;                                               // that it had: its memory is for so many
  mutable kernels::GrowBuffer host_residual, host_input, host_logits;  // what accessors copy from the device

  // Passes of a thread hand their memory on, so that steady decoding allocates nothing.
  static std::vector<std::unique_ptr<State>>& idle() {
    thread_local std::vector<std::unique_ptr<State>> states;
    return states;
  }
  // The smallest that suffices and is not much larger, so that small passes do not come to have the memory of large
  // ones, which then take more; else one that is too small, the largest.
  static std::unique_ptr<State> taken(int64_t rows) {
    constexpr int64_t kMostWaste = 4;
    auto best = idle().end();
    for (auto it = idle().begin(); it != idle().end(); ++it) {
      const int64_t held = (*it)->most_rows;
      if (held / kMostWaste > rows) continue;
      const int64_t best_held = best == idle().end() ? 0 : (*best)->most_rows;
      if (best_held < rows ? held > best_held : held >= rows && held < best_held) best = it;
    }
    std::unique_ptr<State> state = best == idle().end() ? std::make_unique<State>() : std::move(*best);
    if (best != idle().end()) idle().erase(best);
    state->most_rows = std::max(state->most_rows, rows);
    return state;
  }
};

namespace {

int64_t rows_of(std::span<const SequenceChunk> batch) {
  int64_t rows = 0;
  for (const SequenceChunk& chunk : batch) rows += std::ssize(chunk.tokens);
  return rows;
}

}  // namespace

ForwardPass::ForwardPass(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch)
    : state_(State::taken(rows_of(batch))) {
  state_->begin(model, cache, batch);
  state_->embed();
}

ForwardPass::ForwardPass(const Model& model, KvCache& cache, std::span<const SequenceChunk> batch, int32_t first_layer,
                         kernels::ConstMatrix residual)
    : state_(State::taken(rows_of(batch))) {
  state_->begin(model, cache, batch);
  state_->start_from(first_layer, residual);
}

ForwardPass::~ForwardPass() {
  if (state_) State::idle().push_back(std::move(state_));
}

int64_t ForwardPass::rows() const { return static_cast<int64_t>(state_->tokens.size()); }

int32_t ForwardPass::next_layer() const { return state_->next_layer; }

void ForwardPass::run_layer() { state_->run_layer(); }

void ForwardPass::run_keys_values_only() { state_->run_keys_values_only(); }

void ForwardPass::keep_attention_input(bool keep) { state_->keep_input = keep; }

kernels::ConstMatrix ForwardPass::attention_input() const {
  return on_host(attention_input_on_device(), state_->host_input);
}

kernels::ConstMatrix ForwardPass::attention_input_on_device() const {
  SCD_CHECK(state_->input_kept, "keep_attention_input(true) came before the layer");
  return state_->kept;
}

kernels::ConstMatrix ForwardPass::queries_on_device() const {
  SCD_CHECK(state_->next_layer > 0, "a layer ran");
  return columns_of(state_->last_qkv, 0, QkvWidths(state_->model->config()).query);
}

kernels::ConstMatrix ForwardPass::hidden_state() const {
  return on_host(hidden_state_on_device(), state_->host_residual);
}

kernels::ConstMatrix ForwardPass::hidden_state_on_device() const {
  SCD_CHECK(!state_->ended, "the pass went on after its last layer's keys");
  return state_->residual;
}

kernels::ConstMatrix ForwardPass::logits(std::span<const int64_t> chosen_rows) {
  return on_host(logits_on_device(chosen_rows), state_->host_logits);
}

kernels::Matrix ForwardPass::logits_on_device(std::span<const int64_t> chosen_rows) {
  return state_->logits(chosen_rows);
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

}  // namespace scd
