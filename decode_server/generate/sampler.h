// The next token of one request from one row of logits. Everything random comes from the request's seed and the token's
// number, so equal logits and seeds give the same token whatever else the server does.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/base/token.h"
#include "decode_server/completion.h"

namespace scd {

// Uniform in [0, 1), a pure function of its arguments: SplitMix64 (Steele, Lea, Flood 2014) read as a counter-based
// generator, keyed by the mixed seed.
double uniform_of(uint64_t seed, uint64_t counter);

// What to draw a token with, where its log probability is not asked for.
struct Draw {
  kernels::SamplingOptions options;
  double uniform = 0.0;
  std::span<const kernels::LogitChange> changes = {};  // of row 0, to be made first; until the next token is taken
};

class Sampler {
 public:
  // `prompt` counts for the repetition penalty. `end_ids`: ids that may not be sampled before min_tokens, sorted.
  Sampler(const SamplingRequest& request, std::span<const TokenId> prompt, std::vector<TokenId> end_ids);

  // logits [vocab]; the token is remembered for the penalties of the next one. Log probabilities are those of the model
  // before any penalty, bias or temperature.
  SampledToken next(std::span<const float> logits);

  // What next() would do, for somebody else to do it and to tell what was drawn; nothing where it takes logits.
  std::optional<Draw> draw() const;
  SampledToken drawn(TokenId id);
  // Of the token after that one; nothing where it depends on it.
  std::optional<Draw> draw_after_next() const;

 private:
  std::optional<Draw> draw_of(int64_t token) const;
  bool awaits_min_tokens() const { return sampled_ < request_.min_tokens; }
  std::span<const float> changed(std::span<const float> logits);
  void remember(TokenId id);
  void update_change(TokenId id);
  float bias_of(TokenId id) const;

  const SamplingRequest request_;
  const std::vector<TokenId> end_ids_;
  std::vector<std::pair<TokenId, float>> biases_;  // sorted, an id once
  std::unordered_map<TokenId, int32_t> output_counts_;
  std::vector<kernels::LogitChange> changes_;  // of the next token, sorted by id
  std::vector<float> scratch_;
  int64_t sampled_ = 0;
};

}  // namespace scd
