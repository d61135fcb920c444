#include "common/schedule/step_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace scd {
namespace {

TEST(StepPlan, the_prompt_with_the_least_left_goes_first) {
  const std::vector<PromptInLine> prompts{{{0, 1}, 500, 0}, {{0, 2}, 20, 0}, {{0, 3}, 60, 0}};
  EXPECT_EQ(share_out(prompts, 64), (std::vector<int64_t>{0, 20, 44}));
  EXPECT_EQ(share_out(prompts, 100), (std::vector<int64_t>{20, 20, 60}));
  EXPECT_EQ(share_out(prompts, 10000), (std::vector<int64_t>{500, 20, 60}));
  EXPECT_EQ(share_out(prompts, 0), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_TRUE(share_out({}, 64).empty());
}

TEST(StepPlan, whole_granules_unless_a_prompt_ends) {
  const std::vector<PromptInLine> prompts{{{0, 1}, 500, 0}, {{0, 2}, 20, 0}, {{0, 3}, 60, 0}};
  EXPECT_EQ(share_out(prompts, 128, 32), (std::vector<int64_t>{32, 20, 60}));
  EXPECT_EQ(share_out(prompts, 96, 32), (std::vector<int64_t>{0, 20, 60}));
  EXPECT_EQ(share_out(prompts, 64, 32), (std::vector<int64_t>{0, 20, 32}));
}

TEST(StepPlan, priority_comes_before_length_and_arrival_decides_between_equals) {
  EXPECT_EQ(share_out(std::vector<PromptInLine>{{{0, 1}, 20, 0}, {{1, 2}, 500, 0}}, 64), (std::vector<int64_t>{0, 64}));
  EXPECT_EQ(share_out(std::vector<PromptInLine>{{{0, 7}, 80, 0}, {{0, 3}, 80, 0}}, 64), (std::vector<int64_t>{0, 64}));
  EXPECT_TRUE((Precedence{2, 9}).before({1, 1}));
  EXPECT_TRUE((Precedence{1, 1}).before({1, 2}));
  EXPECT_FALSE((Precedence{1, 2}).before({1, 2}));
}

// Steps of a server until the prompt `watched` is computed, while `arrive` adds others.
template <class Arrive>
int64_t steps_until_done(std::vector<PromptInLine> prompts, uint64_t watched, int64_t budget, Arrive arrive) {
  for (int64_t step = 0; step < 3000; ++step) {
    arrive(step, prompts);
    const auto shares = share_out(prompts, budget);
    for (size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].tokens_left -= shares[i];
      prompts[i].age_tokens += age_tokens(1, budget);
    }
    const auto done = std::ranges::find_if(
        prompts, [&](const auto& p) { return p.precedence.arrival == watched && p.tokens_left == 0; });
    if (done != prompts.end()) return step + 1;
    std::erase_if(prompts, [](const auto& prompt) { return prompt.tokens_left == 0; });
  }
  return -1;
}

TEST(StepPlan, a_short_prompt_never_waits_for_longer_ones) {
  constexpr int64_t kBudget = 128;
  std::vector<PromptInLine> prompts;
  for (uint64_t i = 1; i <= 20; ++i) prompts.push_back({{0, i}, 8000, 0});
  prompts.push_back({{0, 100}, 100, 0});
  EXPECT_EQ(steps_until_done(prompts, 100, kBudget, [](int64_t, auto&) {}), 1);
}

// Short ones come faster than they are served, all the time.
TEST(StepPlan, a_long_prompt_waits_no_more_than_a_bounded_number_of_steps) {
  constexpr int64_t kBudget = 128, kLong = 4096;
  uint64_t next = 2;
  const auto flood = [&](int64_t, std::vector<PromptInLine>& prompts) {
    prompts.push_back({{0, next++}, kBudget, 0});
    prompts.push_back({{0, next++}, kBudget, 0});
  };
  const int64_t steps = steps_until_done({{{0, 1}, kLong, 0}}, 1, kBudget, flood);
  ASSERT_GT(steps, 0);
  // Two prompts a step overtake it until its age makes up for its length; without ageing it would wait for ever.
  const int64_t chunks = kLong / kBudget, overtaken = 2 * (kLong / age_tokens(1, kBudget) + 1);
  EXPECT_LE(steps, overtaken + chunks);
  EXPECT_GT(steps, overtaken / 2);
}

}  // namespace
}  // namespace scd
