// One model's run over a batch of windows, layer by layer, and the rows that statistics are made of: those of positions
// that are coded, without the sinks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/model/forward.h"
#include "tools/scd/cache_pages.h"
#include "tools/scd/calibration_text.h"

namespace scd {

class WindowPass {
 public:
  // All must outlive it.
  WindowPass(const Model& model, std::span<const TokenWindow> windows, int64_t sinks);

  void run_layer() { pass_->run_layer(); }
  // The residual stream before the layer that runs next.
  DenseMatrix residual() const { return coded_rows(pass_->hidden_state(), false); }
  // Of the layer that ran last, rows of all windows below each other. Keys and queries are without RoPE.
  KeysValues keys_values(int32_t layer) const;
  DenseMatrix attention_inputs() const;
  DenseMatrix queries() const;

 private:
  // The rows of coded positions of a matrix that has those of all tokens.
  DenseMatrix coded_rows(kernels::ConstMatrix all, bool unrotate) const;

  const Model& model_;
  std::span<const TokenWindow> windows_;
  int64_t skipped_;
  KvCache cache_;
  std::vector<PageTable> pages_;
  std::vector<SequenceChunk> batch_;
  std::unique_ptr<ForwardPass> pass_;
};

// Calls visit with runs of windows of at most batch_tokens in sum (or one window), and the share done with each.
void for_each_batch(std::span<const TokenWindow> windows, int64_t batch_tokens,
                    const std::function<void(std::span<const TokenWindow>, double)>& visit);

}  // namespace scd
