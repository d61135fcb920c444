#include "tools/scd/prompt_batch.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "common/base/check.h"
#include "common/base/error.h"
#include "common/model/forward.h"
#include "kernels/sampling.h"
#include "tools/scd/cache_pages.h"

namespace scd {
namespace {

int32_t pages_for(int64_t tokens) { return static_cast<int32_t>((tokens + kPageTokens - 1) / kPageTokens); }

}  // namespace

PromptBatch::PromptBatch(const Model& consumer, int64_t max_tokens)
    : consumer_(consumer),
      max_tokens_(max_tokens),
      cache_(consumer.config().kv_shape(consumer.precision()),
             pages_for(max_tokens) * static_cast<int32_t>(kMostPrompts), consumer.device()) {
  for (size_t i = 0; i < kMostPrompts; ++i) {
    tables_.push_back(cache_.pool().make_table());
    (void)tables_.back().reserve(max_tokens).value_or_throw();
  }
}

void PromptBatch::set_prompts(std::vector<std::vector<TokenId>> prompts, int64_t shared) {
  SCD_CHECK(!prompts.empty() && prompts.size() <= kMostPrompts, "as many prompts as there is room for");
  for (const std::vector<TokenId>& prompt : prompts) check_room(prompt.size());
  prompts_ = std::move(prompts);
  shared_ = shared;
  first_ids_.clear();
}

void PromptBatch::cache_changed() {
  first_ids_.clear();
  for (size_t i = 1; i < prompts_.size(); ++i) {
    for (int32_t layer = 0; layer < cache_.shape().layers; ++layer) {
      copy_rows(cache_, tables_.front(), cache_, tables_[i], layer, {0, shared_});
    }
  }
}

std::vector<Continuation> PromptBatch::run(std::span<const std::vector<TokenId>> forced,
                                           std::span<const int64_t> last) {
  SCD_CHECK(forced.size() == prompts_.size(), "forced tokens of every prompt");
  SCD_CHECK(last.empty() || last.size() == prompts_.size(), "last tokens of every prompt");
  std::vector<std::vector<TokenId>> tokens;
  std::vector<SequenceChunk> batch;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    check_room(prompts_[i].size() + forced[i].size());
    tokens.emplace_back(prompts_[i].begin() + shared_, prompts_[i].end());
    tokens.back().insert(tokens.back().end(), forced[i].begin(), forced[i].end());
  }
  for (size_t i = 0; i < tokens.size(); ++i) batch.push_back({&tables_[i], shared_, tokens[i]});
  ForwardPass pass(consumer_, cache_, batch);
  while (pass.next_layer() < consumer_.config().layers) pass.run_layer();
  std::vector<Continuation> continuations;
  first_ids_.clear();
  int64_t end = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    end += std::ssize(tokens[i]);
    const int64_t count = last.empty() ? std::ssize(tokens[i]) : std::min(last[i], std::ssize(tokens[i]));
    const int64_t first_id = count - std::ssize(forced[i]) - 1;  // row
    SCD_CHECK(first_id >= 0, "the prompt's last token and all forced ones");
    std::vector<int64_t> rows(static_cast<size_t>(count));
    std::iota(rows.begin(), rows.end(), end - count);
    const kernels::ConstMatrix logits = pass.logits(rows);
    const auto* begin = logits.row<float>(0);
    continuations.push_back({shared_ + std::ssize(tokens[i]) - count,
                             logits.rows,
                             logits.columns,
                             {begin, begin + logits.rows * logits.columns}});
    first_ids_.push_back(kernels::sample(continuations.back().row(first_id), {}, 0.0));
  }
  return continuations;
}

std::vector<std::vector<TokenId>> PromptBatch::generate(int32_t max_tokens, const std::function<bool(TokenId)>& ends) {
  const std::vector<TokenId>& end_ids = consumer_.config().end_of_sequence;
  std::vector<std::vector<TokenId>> generated(prompts_.size());
  if (max_tokens <= 0) return generated;
  for (const std::vector<TokenId>& prompt : prompts_) check_room(prompt.size() + static_cast<size_t>(max_tokens));
  if (first_ids_.empty()) {
    const std::vector<int64_t> only_the_last(prompts_.size(), 1);
    (void)run(std::vector<std::vector<TokenId>>(prompts_.size()), only_the_last);
  }
  std::vector<size_t> going(prompts_.size());
  std::iota(going.begin(), going.end(), 0);
  for (const size_t prompt : going) generated[prompt].push_back(first_ids_[prompt]);
  while (true) {
    std::erase_if(going, [&](size_t prompt) {
      const TokenId last = generated[prompt].back();
      return std::ssize(generated[prompt]) >= max_tokens || std::ranges::find(end_ids, last) != end_ids.end() ||
             (ends && ends(last));
    });
    if (going.empty()) return generated;
    std::vector<SequenceChunk> batch;
    for (const size_t prompt : going) {
      const std::vector<TokenId>& ids = generated[prompt];
      batch.push_back({&tables_[prompt], std::ssize(prompts_[prompt]) + std::ssize(ids) - 1, std::span(ids).last(1)});
    }
    const std::vector<float> logits = forward_last_logits(consumer_, cache_, batch);
    const size_t vocab = logits.size() / going.size();
    for (size_t i = 0; i < going.size(); ++i) {
      generated[going[i]].push_back(kernels::sample(std::span(logits).subspan(i * vocab, vocab), {}, 0.0));
    }
  }
}

void PromptBatch::check_room(size_t tokens) const {
  if (tokens <= static_cast<size_t>(max_tokens_)) return;
  throw Error(ErrorCode::kOutOfRange, "a prompt and its continuation of " + std::to_string(tokens) +
                                          " tokens exceed the " + std::to_string(max_tokens_) +
                                          " this experiment has room for");
}

}  // namespace scd
