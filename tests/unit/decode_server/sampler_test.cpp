#include "decode_server/generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace scd {
namespace {

TEST(UniformOf, is_a_function_of_seed_and_counter_within_the_unit_interval) {
  std::set<double> values;
  double sum = 0;
  for (uint64_t counter = 0; counter < 4096; ++counter) {
    const double value = uniform_of(7, counter);
    EXPECT_EQ(value, uniform_of(7, counter));
    EXPECT_GE(value, 0.0);
    EXPECT_LT(value, 1.0);
    values.insert(value);
    sum += value;
  }
  EXPECT_EQ(values.size(), 4096u);
  EXPECT_NEAR(sum / 4096, 0.5, 0.02);
  EXPECT_NE(uniform_of(7, 0), uniform_of(8, 0));
}

TEST(Sampler, equal_seeds_draw_equal_tokens) {
  const std::vector<float> logits(100, 0.0f);
  SamplingRequest request;
  request.options.temperature = 1.0f;
  request.seed = 42;
  Sampler first(request, {}, {}), second(request, {}, {});
  std::set<TokenId> drawn;
  for (int i = 0; i < 50; ++i) {
    const TokenId id = first.next(logits).id;
    EXPECT_EQ(id, second.next(logits).id);
    drawn.insert(id);
  }
  EXPECT_GT(drawn.size(), 20u);
}

TEST(Sampler, presence_and_frequency_penalties_count_generated_tokens_only) {
  const std::vector<float> logits = {1.0f, 1.5f, 0.0f};
  SamplingRequest request;
  request.presence_penalty = 0.25f;
  request.frequency_penalty = 0.5f;
  const std::vector<TokenId> prompt = {1, 1, 1};
  Sampler sampler(request, prompt, {});
  EXPECT_EQ(sampler.next(logits).id, 1);  // 1.5
  EXPECT_EQ(sampler.next(logits).id, 0);  // token 1 is at 0.75
  EXPECT_EQ(sampler.next(logits).id, 1);  // token 0 is at 0.25
}

TEST(Sampler, repetition_penalty_divides_positive_and_multiplies_negative_logits_of_prompt_and_output) {
  const std::vector<float> logits = {2.0f, 1.5f, -1.0f};
  SamplingRequest request;
  request.repetition_penalty = 2.0f;
  const std::vector<TokenId> prompt = {0};
  Sampler sampler(request, prompt, {});
  EXPECT_EQ(sampler.next(logits).id, 1);  // 2.0 became 1.0
  EXPECT_EQ(sampler.next(logits).id, 0);  // 1.5 became 0.75
}

TEST(Sampler, logit_bias_is_added) {
  const std::vector<float> logits = {2.0f, 1.5f};
  SamplingRequest request;
  request.logit_bias = {{1, 1.0f}};
  EXPECT_EQ(Sampler(request, {}, {}).next(logits).id, 1);
}

TEST(Sampler, whoever_draws_for_it_is_told_what_changes) {
  const auto changes = [](const Sampler& sampler) {
    const auto span = sampler.draw()->changes;
    return std::vector<kernels::LogitChange>(span.begin(), span.end());
  };
  using Changes = std::vector<kernels::LogitChange>;
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  SamplingRequest request;
  EXPECT_EQ(changes(Sampler(request, {}, {1, 4})), Changes{});
  request.min_tokens = 1;
  Sampler waits(request, {}, {1, 4});
  EXPECT_EQ(changes(waits), (Changes{{.id = 1, .bias = kNever}, {.id = 4, .bias = kNever}}));
  waits.drawn(0);
  EXPECT_EQ(changes(waits), Changes{});
  request.logit_bias = {{1, 1.0f}, {1, 2.0f}, {7, -1.0f}};
  request.presence_penalty = 0.5f;
  request.frequency_penalty = 0.25f;
  request.repetition_penalty = 2.0f;
  const std::vector<TokenId> prompt = {5, 1, 5};
  Sampler all(request, prompt, {1, 4});
  EXPECT_EQ(changes(all), (Changes{{.id = 1, .penalty = 2, .bias = kNever},
                                   {.id = 4, .bias = kNever},
                                   {.id = 5, .penalty = 2},
                                   {.id = 7, .bias = -1}}));
  all.drawn(7);
  all.drawn(7);
  EXPECT_EQ(
      changes(all),
      (Changes{{.id = 1, .penalty = 2, .bias = 3}, {.id = 5, .penalty = 2}, {.id = 7, .penalty = 2, .bias = -2}}));
  request.logprobs = 0;
  EXPECT_FALSE(Sampler(request, prompt, {}).draw());
}

TEST(Sampler, a_token_may_be_drawn_before_the_one_before_it_is_known) {
  SamplingRequest request;
  request.options.temperature = 1.0f;
  request.seed = 3;
  request.logit_bias = {{2, 1.0f}};
  request.min_tokens = 3;
  Sampler sampler(request, {}, {1});
  for (int i = 0; i < 6; ++i) {
    const auto ahead = sampler.draw_after_next();
    ASSERT_EQ(ahead.has_value(), i != 2) << i << ": tokens that end wait for three others";
    const std::vector<kernels::LogitChange> changes =
        ahead ? std::vector(ahead->changes.begin(), ahead->changes.end()) : std::vector<kernels::LogitChange>{};
    sampler.drawn(5);
    const auto next = sampler.draw();
    ASSERT_TRUE(next);
    if (!ahead) continue;
    EXPECT_EQ(ahead->uniform, next->uniform);
    EXPECT_TRUE(std::ranges::equal(changes, next->changes));
  }
  const auto refused = [](auto change) {
    SamplingRequest other;
    change(other);
    return !Sampler(other, {}, {}).draw_after_next();
  };
  EXPECT_TRUE(refused([](SamplingRequest& r) { r.repetition_penalty = 1.1f; }));
  EXPECT_TRUE(refused([](SamplingRequest& r) { r.presence_penalty = 0.1f; }));
  EXPECT_TRUE(refused([](SamplingRequest& r) { r.frequency_penalty = -0.1f; }));
  EXPECT_TRUE(refused([](SamplingRequest& r) { r.logprobs = 0; }));
}

TEST(Sampler, ending_tokens_wait_for_min_tokens) {
  const std::vector<float> logits = {1.0f, 5.0f};
  SamplingRequest request;
  request.min_tokens = 2;
  Sampler sampler(request, {}, {1});
  EXPECT_EQ(sampler.next(logits).id, 0);
  EXPECT_EQ(sampler.next(logits).id, 0);
  EXPECT_EQ(sampler.next(logits).id, 1);
}

TEST(Sampler, log_probabilities_are_the_models_own) {
  const std::vector<float> logits = {0.0f, std::log(3.0f)};
  SamplingRequest request;
  request.logit_bias = {{0, 50.0f}};
  request.logprobs = 2;
  const SampledToken token = Sampler(request, {}, {}).next(logits);
  EXPECT_EQ(token.id, 0);
  EXPECT_NEAR(token.logprob, std::log(0.25), 1e-5);
  ASSERT_EQ(token.most_probable.size(), 2u);
  EXPECT_EQ(token.most_probable[0].id, 1);
  EXPECT_NEAR(token.most_probable[0].log_probability, std::log(0.75), 1e-5);
}

}  // namespace
}  // namespace scd
