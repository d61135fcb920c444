#include "tools/scd/answer_score.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <random>

#include "common/base/check.h"

namespace scd {
namespace {

std::vector<std::string> normalised_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto finish = [&] {
    if (!word.empty() && word != "a" && word != "an" && word != "the") words.push_back(word);
    word.clear();
  };
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isspace(byte) != 0) {
      finish();
    } else if (std::ispunct(byte) == 0) {
      word.push_back(static_cast<char>(std::tolower(byte)));
    }
  }
  finish();
  return words;
}

AnswerScore score_one(const std::vector<std::string>& given, const std::vector<std::string>& right) {
  AnswerScore score{0, given == right ? 1.0 : 0.0};
  if (given.empty() || right.empty()) {
    score.f1 = score.exact_match;
    return score;
  }
  std::map<std::string, int> counts;
  for (const std::string& word : right) ++counts[word];
  int common = 0;
  for (const std::string& word : given) {
    if (auto found = counts.find(word); found != counts.end() && found->second > 0) {
      --found->second;
      ++common;
    }
  }
  if (common == 0) return score;
  const double precision = static_cast<double>(common) / static_cast<double>(given.size());
  const double recall = static_cast<double>(common) / static_cast<double>(right.size());
  score.f1 = 2 * precision * recall / (precision + recall);
  return score;
}

}  // namespace

AnswerScore score_answer(std::string_view given, std::span<const std::string> acceptable) {
  const std::vector<std::string> words = normalised_words(given);
  AnswerScore best;
  for (const std::string& answer : acceptable) {
    const AnswerScore score = score_one(words, normalised_words(answer));
    best.f1 = std::max(best.f1, score.f1);
    best.exact_match = std::max(best.exact_match, score.exact_match);
  }
  return best;
}

Interval bootstrap_mean(std::span<const double> values, int32_t resamples) {
  if (values.empty()) return {};
  const auto mean_of = [&](auto&& pick) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[pick(i)];
    return sum / static_cast<double>(values.size());
  };
  std::mt19937_64 random(20240607);
  std::vector<double> means;
  means.reserve(static_cast<size_t>(resamples));
  for (int32_t i = 0; i < resamples; ++i) means.push_back(mean_of([&](size_t) { return random() % values.size(); }));
  return {mean_of([](size_t i) { return i; }), percentile(means, 0.025), percentile(means, 0.975)};
}

double bootstrap_upper_mean(std::span<const double> sums, std::span<const double> counts, double share,
                            int32_t resamples) {
  SCD_CHECK(sums.size() == counts.size(), "a count for each sum");
  std::mt19937_64 random(20240607);
  std::vector<double> means;
  for (int32_t i = 0; i < resamples && !sums.empty(); ++i) {
    double sum = 0, count = 0;
    for (size_t n = 0; n < sums.size(); ++n) {
      const size_t drawn = random() % sums.size();
      sum += sums[drawn];
      count += counts[drawn];
    }
    if (count > 0) means.push_back(sum / count);
  }
  return percentile(std::move(means), share);
}

std::optional<Interval> paired_loss(std::span<const double> reference, std::span<const double> values,
                                    int32_t resamples) {
  SCD_CHECK(reference.size() == values.size(), "a score of each question on both sides");
  const auto loss_of = [&](auto&& pick) -> std::optional<double> {
    double before = 0, after = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t question = pick(i);
      before += reference[question];
      after += values[question];
    }
    return before > 0 ? std::optional(1 - after / before) : std::nullopt;
  };
  const std::optional<double> loss = loss_of([](size_t i) { return i; });
  if (!loss) return std::nullopt;
  std::mt19937_64 random(20240607);
  std::vector<double> losses;
  for (int32_t i = 0; i < resamples; ++i) {
    if (const auto drawn = loss_of([&](size_t) { return random() % values.size(); })) losses.push_back(*drawn);
  }
  return Interval{*loss, percentile(losses, 0.025), percentile(losses, 0.975)};
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  const size_t index = std::clamp<size_t>(rank, 1, values.size()) - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index), values.end());
  return values[index];
}

}  // namespace scd
