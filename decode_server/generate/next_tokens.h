// The next tokens of several sequences from rows of logits, sampled where the logits are.
#pragma once

#include <span>
#include <vector>

#include "decode_server/generate/sampler.h"
#include "kernels/matrix.h"

namespace scd {

class NextTokens {
 public:
  // logits [samplers, vocab] F32 on either device; rows of null samplers count for nothing. On a GPU they are changed,
  // and come to the host only where log probabilities are asked for. By row; until the next call.
  std::span<const SampledToken> of(std::span<Sampler* const> samplers, const kernels::Matrix& logits);
  // Takes the memory that so many rows need on a GPU.
  void warm_up(const kernels::Matrix& logits);

 private:
  void sample_on_gpu(std::span<Sampler* const> samplers, const kernels::Matrix& logits);
  void fetch_needed(std::span<Sampler* const> samplers, const kernels::Matrix& logits);

  std::vector<SampledToken> tokens_;
  // By row, kept from step to step.
  std::vector<kernels::SamplingOptions> options_;
  std::vector<double> uniforms_;
  std::vector<TokenId> ids_;
  std::vector<kernels::LogitChange> changes_;
  std::vector<float> on_host_;  // rows of logits
};

}  // namespace scd
