// One model's run over a batch of windows, layer by layer, and the rows that statistics are made of: those of positions
// that are coded, without the sinks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/model/forward.h"
#include "kernels/matrix.h"
#include "tools/scd/calibration_text.h"

namespace scd {

class WindowPass {
 public:
  // All must outlive it.
  WindowPass(const Model& model, std::span<const TokenWindow> windows, int64_t sinks);

  void run_layer() { pass_->run_layer(); }

  // How many rows there are: those of all windows below each other.
  int64_t rows() const { return rows_; }
  // Into matrices of so many rows, F32, on the host or on the model's device. Keys and queries are without RoPE.
  void copy_residual(kernels::Matrix to) const;  // before the layer that runs next
  void copy_keys_values(int32_t layer, kernels::Matrix keys, kernels::Matrix values) const;  // of any layer that ran
  void copy_attention_inputs(kernels::Matrix to) const;                                      // of that which ran last
  void copy_queries(kernels::Matrix to) const;

 private:
  // Calls f(window, its row among those of all tokens, its row among those that are coded, how many are coded).
  void for_each_window(const std::function<void(size_t, int64_t, int64_t, int64_t)>& f) const;
  void copy_coded(kernels::ConstMatrix all, kernels::Matrix to) const;
  void unrotate(kernels::Matrix rows) const;

  const Model& model_;
  std::span<const TokenWindow> windows_;
  int64_t skipped_;
  int64_t rows_ = 0;
  KvCache cache_;
  std::vector<PageTable> pages_;
  std::vector<SequenceChunk> batch_;
  std::unique_ptr<ForwardPass> pass_;
};

// Calls visit with runs of windows of at most batch_tokens in sum (or one window), and the share done with each.
void for_each_batch(std::span<const TokenWindow> windows, int64_t batch_tokens,
                    const std::function<void(std::span<const TokenWindow>, double)>& visit);

}  // namespace scd
