#include "kernels/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

namespace scd::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits of given probabilities.
std::vector<float> logits_of(std::initializer_list<double> probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 2.0));
  return logits;
}

// Which tokens can come out, over a fine grid of random numbers.
std::set<int32_t> possible(std::span<const float> logits, const SamplingOptions& options) {
  std::set<int32_t> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(sample(logits, options, i / 1000.0));
  return ids;
}

TEST(Sampling, GreedyTakesTheSmallestIdAmongEquals) {
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2, 3}, {}, 0.99), 1);
  EXPECT_EQ(sample(std::vector<float>{-kInfinity, -5, -kInfinity}, {}, 0.0), 1);
}

TEST(Sampling, ChangedLogitsAreSampledAsChanged) {
  std::vector<float> logits = {1, 3, 2, 4, -1, 0};
  const std::vector<LogitChange> changes{{.row = 0, .id = 1, .bias = -kInfinity},
                                         {.row = 1, .id = 0, .penalty = 2.0f, .bias = 0.5f},
                                         {.row = 1, .id = 1, .penalty = 2.0f}};
  change_logits(matrix(logits.data(), 2, 3), changes);
  EXPECT_EQ(logits, (std::vector<float>{1, -kInfinity, 2, 2.5f, -2, 0}));
  EXPECT_EQ(possible(std::span(logits).first(3), {.temperature = 1.0f}), (std::set<int32_t>{0, 2}));
  const LogitChange outside{.row = 2};
  EXPECT_THROW(change_logits(matrix(logits.data(), 2, 3), std::span(&outside, 1)), std::invalid_argument);
}

TEST(Sampling, FollowsTheDistribution) {
  const std::vector<float> logits = logits_of({0.5, 0.2, 0.3});
  std::map<int32_t, int> counts;
  for (int i = 0; i < 10000; ++i) ++counts[sample(logits, {.temperature = 1.0f}, (i + 0.5) / 10000)];
  EXPECT_NEAR(counts[0], 5000, 2);
  EXPECT_NEAR(counts[1], 2000, 2);
  EXPECT_NEAR(counts[2], 3000, 2);
}

TEST(Sampling, TemperatureSharpens) {
  const std::vector<float> logits = logits_of({0.8, 0.2});  // squares: .64 to .04
  int first = 0;
  for (int i = 0; i < 10000; ++i) first += sample(logits, {.temperature = 0.5f}, (i + 0.5) / 10000) == 0 ? 1 : 0;
  EXPECT_NEAR(first, 9412, 2);
}

TEST(Sampling, TheSmallestTemperatureIsNoDivisionByZero) {
  const std::vector<float> logits = logits_of({0.2, 0.5, 0.3});
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1e-42f}, SamplingOptions{.temperature = 1e-42f, .top_p = 0.9f},
        SamplingOptions{.temperature = 1e-42f, .top_k = 2, .min_p = 0.1f}}) {
    EXPECT_EQ(possible(logits, options), (std::set<int32_t>{1}));
  }
}

TEST(Sampling, TopKKeepsExactlyTheFirst) {
  const std::vector<float> logits = logits_of({0.1, 0.3, 0.2, 0.3, 0.1});
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_k = 1}), (std::set<int32_t>{1}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_k = 3}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_k = 4}), (std::set<int32_t>{0, 1, 2, 3}));  // tie: smaller id
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_k = 50}).size(), 5u);
}

TEST(Sampling, TopPKeepsTheShortestRunThatReachesIt) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_p = 0.01f}), (std::set<int32_t>{1}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_p = 0.65f}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_p = 0.75f}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_p = 1.0f}).size(), 4u);
}

TEST(Sampling, MinPIsRelativeToTheMostProbable) {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.15, 0.05});
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .min_p = 0.5f}), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .min_p = 1.0f}), (std::set<int32_t>{0}));
}

TEST(Sampling, AppliesTopKThenTopPThenMinP) {
  // Top 3 leave .4 .3 .2; renormalised .44 .33 .22; top_p .7 needs two of them, of the full distribution also two.
  const std::vector<float> logits = logits_of({0.4, 0.3, 0.2, 0.1});
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_k = 3, .top_p = 0.77f}), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_p = 0.77f}), (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(possible(logits, {.temperature = 1.0f, .top_k = 3, .min_p = 0.7f}), (std::set<int32_t>{0, 1}));
}

TEST(Sampling, NeverTakesForbiddenTokens) {
  const std::vector<float> logits{-kInfinity, 0.0f, std::nanf(""), 0.0f, -kInfinity};
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1.0f}, SamplingOptions{.temperature = 100.0f, .top_k = 4},
        SamplingOptions{.temperature = 1.0f, .top_p = 0.9999f}}) {
    EXPECT_EQ(possible(logits, options), (std::set<int32_t>{1, 3}));
    EXPECT_EQ(sample(logits, options, std::nextafter(1.0, 0.0)), 3);
  }
}

// The selection must agree with a full sort on a vocabulary of realistic size.
TEST(Sampling, AgreesWithSortingTheWholeVocabulary) {
  std::mt19937 generator(5);
  std::normal_distribution<float> values(0.0f, 2.0f);
  std::vector<float> logits(50000);
  for (float& logit : logits) logit = values(generator);
  std::vector<std::pair<double, int32_t>> order;
  double total = 0.0;
  for (size_t id = 0; id < logits.size(); ++id) {
    order.emplace_back(-static_cast<double>(logits[id]), static_cast<int32_t>(id));
    total += std::exp(static_cast<double>(logits[id]));
  }
  std::sort(order.begin(), order.end());
  for (const float top_p : {0.1f, 0.5f, 0.9f, 0.99f}) {
    double sum = 0.0;
    std::set<int32_t> kept;
    for (const auto& [negative, id] : order) {
      kept.insert(id);
      sum += std::exp(-negative);
      if (sum >= top_p * total) break;
    }
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(kept.contains(sample(logits, {.temperature = 1.0f, .top_p = top_p}, i / 20.0)));
    }
    const double just_below_one = std::nextafter(1.0, 0.0);
    EXPECT_TRUE(kept.contains(sample(logits, {.temperature = 1.0f, .top_p = top_p}, just_below_one)));
  }
}

TEST(Sampling, LogProbabilitiesAreTheLogSoftmax) {
  const std::vector<float> logits = logits_of({0.5, 0.2, 0.3});
  EXPECT_NEAR(log_probability(logits, 1), std::log(0.2), 1e-6);
  const std::vector<TokenProbability> top = top_log_probabilities(logits, 2);
  ASSERT_EQ(top.size(), 2u);
  EXPECT_EQ(top[0].id, 0);
  EXPECT_EQ(top[1].id, 2);
  EXPECT_NEAR(top[0].log_probability, std::log(0.5), 1e-6);
  EXPECT_NEAR(top[1].log_probability, std::log(0.3), 1e-6);
  EXPECT_EQ(top_log_probabilities(logits, 9).size(), 3u);
  EXPECT_TRUE(top_log_probabilities(logits, 0).empty());
}

TEST(Sampling, RefusesNonsense) {
  const std::vector<float> logits{1, 2};
  EXPECT_THROW(sample({}, {}, 0.5), std::invalid_argument);
  EXPECT_THROW(sample(logits, {.temperature = -1.0f}, 0.5), std::invalid_argument);
  EXPECT_THROW(sample(logits, {.temperature = std::nanf("")}, 0.5), std::invalid_argument);
  EXPECT_THROW(sample(logits, {.temperature = 1.0f, .top_k = -1}, 0.5), std::invalid_argument);
  EXPECT_THROW(sample(logits, {.temperature = 1.0f, .top_p = 0.0f}, 0.5), std::invalid_argument);
  EXPECT_THROW(sample(logits, {.temperature = 1.0f, .min_p = 2.0f}, 0.5), std::invalid_argument);
  EXPECT_THROW(sample(logits, {.temperature = 1.0f}, 1.0), std::invalid_argument);
  EXPECT_THROW(log_probability(logits, 2), std::invalid_argument);
  EXPECT_THROW(top_log_probabilities(logits, -1), std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels
