// Whose tokens the next step computes. Pure: numbers in, numbers out.
//
// What a step has to give to prompts goes to the one with the least left to compute first, for it makes the fewest
// wait. So that a stream of short prompts cannot hold a long one off for ever, a prompt counts as shorter for each step
// since it came, by a quarter of what a step computes: one of n tokens is never overtaken by a prompt of its priority
// that came more than 4 n / step_tokens steps later.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace scd {

// Who goes first where only one can: higher priority, then earlier arrival.
struct Precedence {
  int32_t priority = 0;
  uint64_t arrival = 0;  // ids of requests rise

  bool before(const Precedence& other) const {
    return priority != other.priority ? priority > other.priority : arrival < other.arrival;
  }
};

struct PromptInLine {
  Precedence precedence;
  int64_t tokens_left = 0;
  int64_t age_tokens = 0;  // counts as so much shorter

  bool before(const PromptInLine& other) const;
};

// Of a prompt that came so many steps ago.
int64_t age_tokens(int64_t steps, int64_t step_tokens);

// Tokens for each prompt, 0 for those that have to wait, of a step that may compute `budget` tokens of prompts: all
// that a prompt has left, or a multiple of `granule`.
std::vector<int64_t> share_out(std::span<const PromptInLine> prompts, int64_t budget, int64_t granule = 1);

}  // namespace scd
