// One token from one row of logits.
#pragma once

#include <cstddef>
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

// A logit is divided by the penalty where it is positive, else multiplied (Keskar et al. 2019, CTRL); then bias is
// added. A bias of minus infinity: never sampled.
struct LogitChange {
  int32_t row = 0;
  int32_t id = 0;
  float penalty = 1.0f;
  float bias = 0.0f;
  bool operator==(const LogitChange&) const = default;
};
inline constexpr size_t kChangesAtOnce = 16384;  // that lie on a GPU
// logits [rows, vocab] F32. Each of them at most once.
void change_logits(Matrix logits, std::span<const LogitChange> changes);

// uniform in [0, 1): the only randomness, so equal seeds give equal tokens.
int32_t sample(std::span<const float> logits, const SamplingOptions& options, double uniform);

inline constexpr int64_t kMostSampled = (int64_t{1} << 20) - 1;
// The same for every row of logits [rows, vocab <= kMostSampled] F32 on either device; ids are on the host. CUDA rounds
// weights otherwise: a token may differ where a border between two lies within 1e-6 of the random number, or of top_p.
void sample_rows(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms,
                 std::span<int32_t> ids);

// log softmax(logits)[id] for the chosen id, in double inside.
float log_probability(std::span<const float> logits, int32_t id);

struct TokenProbability {
  int32_t id = 0;
  float log_probability = 0.0f;
};
// The n most probable tokens, most probable first.
std::vector<TokenProbability> top_log_probabilities(std::span<const float> logits, int32_t n);

}  // namespace scd::kernels
