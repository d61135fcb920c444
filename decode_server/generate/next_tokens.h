// The next tokens of several sequences from rows of logits, sampled where the logits are.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "decode_server/generate/sampler.h"
#include "kernels/sampled_rows.h"

namespace scd {

class NextTokens {
 public:
  // logits [samplers, vocab] F32 on either device; rows of null samplers count for nothing. On a GPU they are changed,
  // and come to the host only where log probabilities are asked for. By row; until the next call.
  std::span<const SampledToken> of(std::span<Sampler* const> samplers, const kernels::Matrix& logits);
  // Takes the memory that so many rows need on a GPU.
  void warm_up(const kernels::Matrix& logits);

  // The same in two parts, so that a GPU may have the next step before the tokens of this one are known here. Two steps
  // at most are queued and not taken; while there is one, of() is not for use. Of logits on a GPU.
  using Draws = std::vector<std::optional<Draw>>;  // by row; nothing: whatever it gives counts for nothing
  void queue(const Draws& draws, const kernels::Matrix& logits);
  // By row, of the step queued first: waits for them. Their samplers are still to be told. Until the next queue().
  std::span<const TokenId> take();
  // The step queued last.
  const kernels::SampledRows& last_queued() const { return queued_rows_[(queued_ - 1) % queued_rows_.size()]; }

 private:
  void fetch_needed(std::span<Sampler* const> samplers, const kernels::Matrix& logits);

  std::vector<SampledToken> tokens_;
  std::array<kernels::SampledRows, 2> queued_rows_;  // of steps, in turns
  size_t queued_ = 0, taken_ = 0;                    // steps so far
  // By row, kept from step to step.
  Draws draws_;
  std::vector<kernels::SamplingOptions> options_;
  std::vector<double> uniforms_;
  std::vector<kernels::LogitChange> changes_;
  std::vector<float> on_host_;  // rows of logits
};

}  // namespace scd
