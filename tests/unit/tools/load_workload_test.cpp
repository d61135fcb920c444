#include "tools/scd/load_workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "common/base/error.h"

namespace scd {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

WorkloadOptions shared_workload() {
  return {.requests = 400,
          .prompt_tokens = 100,
          .prompt_spread = 0.2,
          .shared_share = 0.5,
          .shared_tokens = 64,
          .shared_prefixes = 2,
          .seed = 7};
}

std::string refused(const WorkloadOptions& options) {
  try {
    check_workload(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(PoissonArrivals, have_exponential_gaps_of_the_rates_mean) {
  constexpr size_t kCount = 20'001;
  const std::vector<double> arrivals = poisson_arrivals(4, kCount, 1);
  EXPECT_EQ(arrivals.front(), 0);
  std::vector<double> gaps;
  for (size_t i = 1; i < kCount; ++i) gaps.push_back(arrivals[i] - arrivals[i - 1]);
  const double mean = arrivals.back() / static_cast<double>(gaps.size());
  EXPECT_NEAR(mean, 0.25, 1e-9) << "exactly the rate";
  const auto longer = std::ranges::count_if(gaps, [](double gap) { return gap > 0.25; });
  EXPECT_NEAR(static_cast<double>(longer) / static_cast<double>(gaps.size()), std::exp(-1), 0.01);
  double square = 0;
  for (const double gap : gaps) square += (gap - mean) * (gap - mean);
  EXPECT_NEAR(std::sqrt(square / static_cast<double>(gaps.size())), 0.25, 0.01) << "as far spread as they are long";
}

TEST(PoissonArrivals, are_the_seeds_and_scale_with_the_rate) {
  const auto slow = poisson_arrivals(1, 50, 3), fast = poisson_arrivals(10, 50, 3);
  EXPECT_EQ(slow, poisson_arrivals(1, 50, 3));
  EXPECT_NE(slow, poisson_arrivals(1, 50, 4));
  for (size_t i = 0; i < slow.size(); ++i) EXPECT_NEAR(slow[i], 10 * fast[i], 1e-9);
  EXPECT_THAT(poisson_arrivals(std::numeric_limits<double>::infinity(), 5, 3), Each(0));
  EXPECT_THAT(poisson_arrivals(2, 1, 3), Each(0));
  EXPECT_NEAR(poisson_arrivals(2, 5, 3).back(), 2, 1e-12);
}

TEST(Workload, a_seed_gives_the_same_prompts_and_another_one_others) {
  WorkloadOptions options = shared_workload();
  const auto tokens_of = [&] {
    std::vector<std::vector<TokenId>> all;
    for (const LoadPrompt& prompt : synthetic_prompts(options, 300)) all.push_back(prompt.tokens);
    return all;
  };
  const auto first = tokens_of();
  EXPECT_EQ(first, tokens_of());
  options.seed = 8;
  EXPECT_NE(first, tokens_of());
}

TEST(Workload, lengths_and_the_share_of_shared_prefixes_are_those_asked_for) {
  const auto prompts = synthetic_prompts(shared_workload(), 1 << 20);  // so many tokens that none repeats by chance
  std::map<std::vector<TokenId>, int> beginnings;
  int64_t shortest = 1000, longest = 0;
  for (const LoadPrompt& prompt : prompts) {
    const int64_t length = std::ssize(prompt.tokens);
    shortest = std::min(shortest, length);
    longest = std::max(longest, length);
    EXPECT_THAT(prompt.tokens, Each(::testing::AllOf(::testing::Ge(0), ::testing::Lt(1 << 20))));
    ++beginnings[{prompt.tokens.begin(), prompt.tokens.begin() + 64}];
  }
  EXPECT_GE(shortest, 80);
  EXPECT_LE(shortest, 84);
  EXPECT_LE(longest, 120);
  EXPECT_GE(longest, 116);
  int shared = 0, prefixes = 0;
  for (const auto& [beginning, count] : beginnings) {
    if (count == 1) continue;
    ++prefixes;
    shared += count;
  }
  EXPECT_EQ(prefixes, 2);
  EXPECT_NEAR(shared, 200, 40);
  std::map<std::vector<TokenId>, int> whole;
  for (const LoadPrompt& prompt : prompts) ++whole[prompt.tokens];
  EXPECT_EQ(whole.size(), prompts.size()) << "every prompt has an end of its own";
}

TEST(Workload, prompts_of_a_text_are_places_in_it) {
  std::vector<TokenId> text(1000);
  std::iota(text.begin(), text.end(), 0);
  WorkloadOptions options = shared_workload();
  for (const LoadPrompt& prompt : text_prompts(options, text)) {
    ASSERT_GE(std::ssize(prompt.tokens), 80);
    const bool first = std::equal(prompt.tokens.begin(), prompt.tokens.begin() + 64, text.begin());
    const bool second = std::equal(prompt.tokens.begin(), prompt.tokens.begin() + 64, text.begin() + 64);
    const size_t own = first || second ? 64 : 0;
    for (size_t i = own + 1; i < prompt.tokens.size(); ++i) EXPECT_EQ(prompt.tokens[i], prompt.tokens[i - 1] + 1);
  }
  EXPECT_THROW(text_prompts(options, std::span(text).first(100)), Error);
}

TEST(Workload, a_data_set_is_asked_in_random_order_and_again_when_it_ends) {
  const std::vector<std::string> prompts{"a", "b", "c", "d", "e"};
  const auto chosen = dataset_prompts({.requests = 10, .seed = 3}, prompts);
  std::vector<std::string> first, second;
  for (size_t i = 0; i < 5; ++i) {
    first.push_back(chosen[i].text);
    second.push_back(chosen[5 + i].text);
  }
  EXPECT_EQ(first, second);
  EXPECT_NE(first, prompts);
  EXPECT_THAT(first, ::testing::UnorderedElementsAreArray(prompts));
}

TEST(Workload, what_does_not_go_together_is_named) {
  EXPECT_EQ(refused(shared_workload()), "accepted");
  EXPECT_THAT(refused({.requests = 0}), HasSubstr("--requests"));
  EXPECT_THAT(refused({.prompt_spread = 1}), HasSubstr("--prompt-spread"));
  EXPECT_THAT(refused({.shared_share = 1.5, .shared_tokens = 1}), HasSubstr("--shared-share"));
  EXPECT_THAT(refused({.shared_share = 0.5}), HasSubstr("go together"));
  EXPECT_THAT(refused({.shared_tokens = 5}), HasSubstr("go together"));
  EXPECT_THAT(refused({.prompt_tokens = 64, .shared_share = 1, .shared_tokens = 64}), HasSubstr("a token of its own"));
}

}  // namespace
}  // namespace scd
