// Prompts that begin alike, and what the consumer makes of them over one cache of that beginning: all in one batch, so
// that its weights are read once for all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "common/base/token.h"
#include "common/kv/kv_cache.h"
#include "common/model/model.h"

namespace scd {

// Logits of consecutive positions: row i is the distribution of the token at first_position + i + 1.
struct Continuation {
  int64_t first_position = 0;
  int64_t rows = 0;
  int64_t vocab = 0;
  std::vector<float> logits;  // [rows, vocab]

  std::span<const float> row(int64_t index) const {
    return std::span(logits).subspan(static_cast<size_t>(index * vocab), static_cast<size_t>(vocab));
  }
};

// Not thread-safe. Room for kMostPrompts of max_tokens each.
class PromptBatch {
 public:
  static constexpr size_t kMostPrompts = 8;

  PromptBatch(const Model& consumer, int64_t max_tokens);

  // All of them alike in [0, shared), which ends with a page. `shared` positions are to be put into cache() and
  // pages(), and said to be new with cache_changed(), before run() or generate().
  void set_prompts(std::vector<std::vector<TokenId>> prompts, int64_t shared);
  std::span<const std::vector<TokenId>> prompts() const { return prompts_; }
  // Throws Error kOutOfRange when so many tokens, prompt and continuation, are too many.
  void check_room(size_t tokens) const;
  int64_t shared() const { return shared_; }

  KvCache& cache() { return cache_; }
  const PageTable& pages() const { return tables_.front(); }
  void cache_changed();

  // Of each prompt [shared, end) and then its forced tokens: a distribution for every one of these. forced: one a
  // prompt. last: of each prompt only so many last ones, all forced ones and one more at least; empty: all. Throws
  // Error kOutOfRange beyond max_tokens.
  std::vector<Continuation> run(std::span<const std::vector<TokenId>> forced, std::span<const int64_t> last = {});

  // Greedily up to max_tokens ids a prompt. The first end-of-sequence id of the consumer, or the first id that `ends`
  // holds for, is the last of them, as in a decode server's answer.
  std::vector<std::vector<TokenId>> generate(int32_t max_tokens, const std::function<bool(TokenId)>& ends);

 private:
  const Model& consumer_;
  const int64_t max_tokens_;
  KvCache cache_;
  std::vector<PageTable> tables_;  // by prompt
  std::vector<std::vector<TokenId>> prompts_;
  int64_t shared_ = 0;
  std::vector<TokenId> first_ids_;  // by prompt: the likeliest after it; empty where it did not run on this cache yet
};

}  // namespace scd
