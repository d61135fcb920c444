// How an answer is scored: exact match and token F1 as the SQuAD evaluation defines them (Rajpurkar et al. 2016,
// arXiv:1606.05250): lower case, no punctuation, no articles, white space joined.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace scd {

struct AnswerScore {
  double f1 = 0;           // in [0, 1]
  double exact_match = 0;  // 0 or 1
};

// The best score over the acceptable answers.
AnswerScore score_answer(std::string_view given, std::span<const std::string> acceptable);

// Mean with a percentile bootstrap interval (Efron 1979), seeded: the same values give the same interval.
struct Interval {
  double mean = 0;
  double low = 0;   // 2.5 %
  double high = 0;  // 97.5 %
};
Interval bootstrap_mean(std::span<const double> values, int32_t resamples = 1000);

// The mean of all entries of `sums`, each over `counts` entries, from above: the value below which `share` of the
// bootstrap's resamples lie. A sum and its count are drawn together: text is drawn by contexts, not by tokens. Seeded
// as bootstrap_mean() is; counts that are 0 throughout give 0.
double bootstrap_upper_mean(std::span<const double> sums, std::span<const double> counts, double share = 0.95,
                            int32_t resamples = 2000);

// Share of the reference's mean that is lost, 1 - mean(values) / mean(reference), with its bootstrap interval. Entries
// of one index belong to one question and are drawn together: what makes a question hard or easy for both cancels.
// Nothing where the reference scored 0 throughout. Draws in which it scored 0 have no ratio and are left out.
std::optional<Interval> paired_loss(std::span<const double> reference, std::span<const double> values,
                                    int32_t resamples = 1000);

// The value below which `share` of the values lie (nearest rank); 0 for none.
double percentile(std::vector<double> values, double share);

}  // namespace scd
