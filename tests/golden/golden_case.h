// A checkpoint with the logits and greedy ids that an independent implementation computed from it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/model/forward.h"
#include "common/model/model.h"

namespace scd::testing {

struct GoldenCase {
  LoadOptions load;
  std::vector<TokenId> input_ids;
  std::vector<TokenId> greedy;
  int64_t vocab = 0;
  std::vector<float> logits;  // [input_ids, vocab]
};

// Nothing where the data is not on this machine.
std::optional<GoldenCase> golden_case(const std::string& name);

// A model with a cache and one sequence in it.
class Sequence {
 public:
  Sequence(const Model& model, int64_t max_tokens);

  // Runs `tokens` as one pass after those before; logits of each, [tokens, vocab].
  std::vector<float> run(std::span<const TokenId> tokens);
  // Prefills `prompt`, then appends the most probable id `steps` times.
  std::vector<TokenId> greedy(std::span<const TokenId> prompt, size_t steps);
  SequenceChunk chunk(std::span<const TokenId> tokens) const { return {&pages_, position_, tokens}; }
  KvCache& cache() { return cache_; }

 private:
  const Model& model_;
  KvCache cache_;
  PageTable pages_;
  int64_t position_ = 0;
};

TokenId most_probable(std::span<const float> logits);
float margin(std::span<const float> logits);  // the largest minus the second largest
std::span<const float> row_of(const std::vector<float>& logits, int64_t vocab, size_t row);

}  // namespace scd::testing
