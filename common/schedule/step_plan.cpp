#include "common/schedule/step_plan.h"

#include <algorithm>
#include <numeric>

namespace scd {

bool PromptInLine::before(const PromptInLine& other) const {
  if (precedence.priority != other.precedence.priority) return precedence.before(other.precedence);
  const int64_t own = tokens_left - age_tokens;
  const int64_t others = other.tokens_left - other.age_tokens;
  return own != others ? own < others : precedence.before(other.precedence);
}

int64_t age_tokens(int64_t steps, int64_t step_tokens) { return steps * std::max<int64_t>(step_tokens / 4, 1); }

std::vector<int64_t> share_out(std::span<const PromptInLine> prompts, int64_t budget, int64_t granule) {
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, [&](size_t a, size_t b) { return prompts[a].before(prompts[b]); });
  std::vector<int64_t> tokens(prompts.size());
  for (const size_t index : order) {
    const int64_t left = prompts[index].tokens_left;
    tokens[index] = left <= budget ? left : budget - budget % granule;
    budget -= tokens[index];
  }
  return tokens;
}

}  // namespace scd
