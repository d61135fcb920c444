#include "tools/scd/answer_score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace scd {
namespace {

AnswerScore score(std::string_view given, std::vector<std::string> right) { return score_answer(given, right); }

TEST(AnswerScore, ignores_case_punctuation_and_articles) {
  EXPECT_EQ(score(" The Red-Hat!", {"a redhat"}).exact_match, 1);
}

TEST(AnswerScore, f1_is_the_harmonic_mean_of_word_precision_and_recall) {
  EXPECT_DOUBLE_EQ(score("in Paris France", {"Paris"}).f1, 0.5);
  EXPECT_DOUBLE_EQ(score("London", {"Paris"}).f1, 0);
  EXPECT_DOUBLE_EQ(score("b b", {"b"}).f1, 2.0 / 3);
}

TEST(AnswerScore, the_best_of_several_answers_counts) { EXPECT_EQ(score("two", {"one", "two"}).exact_match, 1); }

TEST(AnswerScore, an_empty_answer_matches_nothing_but_an_empty_one) {
  EXPECT_EQ(score("", {"x"}).f1, 0);
  EXPECT_EQ(score("the", {""}).f1, 1);
}

TEST(Bootstrap, interval_holds_the_mean_and_shrinks_with_more_values) {
  std::vector<double> few, many;
  for (int i = 0; i < 20; ++i) few.push_back(i % 2);
  for (int i = 0; i < 2000; ++i) many.push_back(i % 2);
  const Interval wide = bootstrap_mean(few), narrow = bootstrap_mean(many);
  EXPECT_DOUBLE_EQ(wide.mean, 0.5);
  EXPECT_LT(wide.low, 0.5);
  EXPECT_GT(wide.high, 0.5);
  EXPECT_LT(narrow.high - narrow.low, (wide.high - wide.low) / 5);
}

// Two contexts: draws give the one, both, or the other with probability 1/4, 1/2, 1/4.
TEST(BootstrapUpperMean, contexts_are_drawn_with_their_counts) {
  const std::vector<double> sums{1, 9}, counts{1, 3};
  EXPECT_DOUBLE_EQ(bootstrap_upper_mean(sums, counts, 0.2), 1.0);
  EXPECT_DOUBLE_EQ(bootstrap_upper_mean(sums, counts, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(bootstrap_upper_mean(sums, counts, 0.95), 3.0);
  EXPECT_EQ(bootstrap_upper_mean(std::vector<double>{0}, std::vector<double>{0}), 0);
}

// Of values with a heavy tail the mean of 64 contexts misses the true one half of the time; its bound seldom does.
TEST(BootstrapUpperMean, is_a_bound_that_holds_and_narrows_with_more_contexts) {
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> heavy(0, 1);
  const double truth = std::exp(0.5);
  const auto draw = [&](size_t contexts) {
    std::vector<double> sums(contexts);
    for (double& sum : sums) sum = heavy(random);
    return sums;
  };
  const auto bound = [](const std::vector<double>& sums) {
    return bootstrap_upper_mean(sums, std::vector<double>(sums.size(), 1.0), 0.95, 200);
  };
  int below = 0;
  for (int trial = 0; trial < 200; ++trial) below += bound(draw(64)) < truth ? 1 : 0;
  EXPECT_LT(below, 200 * 0.15);
  EXPECT_LT(bound(draw(20000)), 1.03 * truth);
}

// Two questions, one lost: the draws lose nothing, half or all with probability 1/4, 1/2, 1/4.
TEST(PairedLoss, is_the_share_of_the_reference_that_is_lost) {
  const std::vector<double> reference{1, 1}, values{1, 0};
  const std::optional<Interval> loss = paired_loss(reference, values);
  ASSERT_TRUE(loss);
  EXPECT_DOUBLE_EQ(loss->mean, 0.5);
  EXPECT_DOUBLE_EQ(loss->low, 0);
  EXPECT_DOUBLE_EQ(loss->high, 1);
}

// A tenth of every question is lost: whichever questions are drawn, a tenth is lost. Unpaired draws would scatter.
TEST(PairedLoss, questions_are_drawn_together_on_both_sides) {
  std::vector<double> reference, values;
  for (int i = 0; i < 40; ++i) {
    reference.push_back(i % 2);
    values.push_back(0.9 * (i % 2));
  }
  const std::optional<Interval> loss = paired_loss(reference, values);
  ASSERT_TRUE(loss);
  EXPECT_NEAR(loss->mean, 0.1, 1e-12);
  EXPECT_NEAR(loss->low, 0.1, 1e-12);
  EXPECT_NEAR(loss->high, 0.1, 1e-12);
}

TEST(PairedLoss, a_gain_is_a_negative_loss_and_nothing_is_lost_of_nothing) {
  EXPECT_DOUBLE_EQ(paired_loss(std::vector{0.5, 0.5}, std::vector{0.5, 1.0})->mean, -0.5);
  EXPECT_FALSE(paired_loss(std::vector{0.0, 0.0}, std::vector{0.0, 1.0}));
  EXPECT_FALSE(paired_loss({}, {}));
}

TEST(Percentile, is_the_nearest_rank) {
  EXPECT_EQ(percentile({3, 1, 2, 4}, 0.5), 2);
  EXPECT_EQ(percentile({3, 1, 2, 4}, 0.99), 4);
  EXPECT_EQ(percentile({}, 0.5), 0);
}

}  // namespace
}  // namespace scd
