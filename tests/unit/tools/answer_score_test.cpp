#include "tools/scd/answer_score.h"

#include <gtest/gtest.h>

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

TEST(Percentile, is_the_nearest_rank) {
  EXPECT_EQ(percentile({3, 1, 2, 4}, 0.5), 2);
  EXPECT_EQ(percentile({3, 1, 2, 4}, 0.99), 4);
  EXPECT_EQ(percentile({}, 0.5), 0);
}

}  // namespace
}  // namespace scd
