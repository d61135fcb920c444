// One token from one row of logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/matrix.h"

namespace scd::kernels {

// temperature 0: greedy (the smallest id among equals). top_k 0, top_p 1, min_p 0: off. Filters apply in the order
// top_k, top_p, min_p on the temperature-scaled distribution, as vLLM does.
struct SamplingOptions {
  float temperature = 0.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
};

struct RowToken {
  int32_t row = 0;
  int32_t id = 0;
};
// These are never sampled: their logits become minus infinity. logits [rows, vocab] F32.
void forbid(Matrix logits, std::span<const RowToken> tokens);

// uniform in [0, 1): the only randomness, so equal seeds give equal tokens.
int32_t sample(std::span<const float> logits, const SamplingOptions& options, double uniform);

// The same for every row of logits [rows, vocab] F32 on either device. On CUDA weights are summed in another order: a
// token may differ where the random number falls within rounding of the border between two.
void sample_rows(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms,
                 std::span<int32_t> ids);

// The greedy id of every row of logits [rows, vocab] F32: what sample() gives at temperature 0. ids [rows] on the host.
void argmax(ConstMatrix logits, std::span<int32_t> ids);

// log softmax(logits)[id] for the chosen id, in double inside.
float log_probability(std::span<const float> logits, int32_t id);

struct TokenProbability {
  int32_t id = 0;
  float log_probability = 0.0f;
};
// The n most probable tokens, most probable first.
std::vector<TokenProbability> top_log_probabilities(std::span<const float> logits, int32_t n);

}  // namespace scd::kernels
