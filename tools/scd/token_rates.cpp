#include "tools/scd/token_rates.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tools/scd/attention_mass.h"

namespace scd {
namespace {

// Weights are drawn towards their mean as by so many queries more: few queries come after the last tokens, or none.
constexpr double kPriorQueries = 0.25;

// Weights that are not of the queries that count tell less than half of theirs in octaves.
double exponent_of(RateQueries queries) { return queries == RateQueries::kScored ? 1.0 : 0.5; }

// Of the regression of weights on codes.
constexpr double kRidge = 0.1;

// Of positions [first, end): the mean over a unit's layers.
std::vector<double> unit_weights(const DenseMatrix& weights, const CodedUnit& unit, int64_t first) {
  std::vector<double> mean(static_cast<size_t>(weights.columns - first));
  for (int32_t layer = unit.first_layer; layer < unit.end(); ++layer) {
    const std::span row(weights.view().row<float>(layer) + first, mean.size());
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += row[i] / sum;
  }
  return mean;
}

}  // namespace

std::vector<double> octaves_of(std::span<const double> weights) {
  std::vector<double> octaves;
  for (const double weight : weights) octaves.push_back(std::log2(weight));
  const double mean = std::accumulate(octaves.begin(), octaves.end(), 0.0) / static_cast<double>(octaves.size());
  for (double& octave : octaves) octave -= mean;
  return octaves;
}

std::vector<int8_t> token_classes(std::span<const double> octaves, double exponent) {
  std::vector<int8_t> classes;
  for (const double octave : octaves) {
    const double wanted = std::round(-exponent * octave);
    classes.push_back(static_cast<int8_t>(std::clamp<double>(wanted, -kMostTokenClass, kMostTokenClass)));
  }
  return classes;
}

// [layers, handover], all above 0.
DenseMatrix TokenRates::weights(const TokenWindow& window, int64_t handover) const {
  const auto length = static_cast<int64_t>(window.size());
  const bool scored = args_.queries == RateQueries::kScored || args_.queries == RateQueries::kLearned;
  const int64_t sinks = args_.experiment.sinks;
  const AttentionQueries queries{
      .of = scored ? PositionRange{handover, length - handover} : PositionRange{sinks, handover - sinks},
      .chunk = args_.queries == RateQueries::kChunk ? args_.experiment.chunk_tokens : 0};
  const int64_t read = scored ? length : handover;
  const DenseMatrix sums = attention_mass(scored ? args_.consumer : args_.producer,
                                          std::span(window).first(static_cast<size_t>(read)), queries);
  const std::vector<int64_t> counts = count_queries(read, queries);
  const double all = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  DenseMatrix means(sums.rows, handover);
  for (int64_t layer = 0; layer < sums.rows; ++layer) {
    const std::span row(sums.view().row<float>(layer), counts.size());
    const double prior = all > 0 ? std::accumulate(row.begin(), row.end(), 0.0) / all : 1.0;
    for (int64_t token = 0; token < handover; ++token) {
      const auto count = static_cast<double>(counts[static_cast<size_t>(token)]);
      means.at(layer, token) =
          static_cast<float>((sums.at(layer, token) + kPriorQueries * prior) / (count + kPriorQueries));
    }
  }
  return means;
}

std::vector<std::vector<double>> TokenRates::octaves(const TokenWindow& window, int64_t handover) const {
  const DenseMatrix of_layers = weights(window, handover);
  std::vector<std::vector<double>> units;
  for (const CodedUnit& unit : args_.plan.units) {
    units.push_back(octaves_of(unit_weights(of_layers, unit, sinks(handover))));
  }
  return units;
}

void TokenRates::set_window(const TokenWindow& window) {
  const int64_t handover = handover_tokens(std::ssize(window), args_.experiment.suffix);
  classes_.assign(args_.plan.units.size(), std::vector<int8_t>(static_cast<size_t>(handover)));
  const bool learned = args_.queries == RateQueries::kLearned;
  if (learned && !learning_) return;
  observed_ = octaves(window, handover);
  for (size_t unit = 0; unit < observed_.size() && !learned; ++unit) {
    std::ranges::copy(token_classes(observed_[unit], exponent_of(args_.queries)),
                      classes_[unit].begin() + sinks(handover));
  }
}

void TokenRates::begin_learning(std::span<const std::vector<float>> deviations) {
  if (args_.queries != RateQueries::kLearned) return;
  learning_ = true;
  for (const std::vector<float>& of_unit : deviations) fits_.emplace_back(of_unit);
}

void TokenRates::end_learning() {
  learning_ = false;
  for (TokenWeightFit& fit : fits_) fit.fit(kRidge);
}

void TokenRates::see(size_t unit, int64_t first_position, const DenseMatrix& codes) {
  if (args_.queries != RateQueries::kLearned) return;
  if (learning_) {
    const auto first = static_cast<size_t>(first_position - args_.experiment.sinks);
    fits_[unit].add(codes, std::span(observed_[unit]).subspan(first, static_cast<size_t>(codes.columns)));
    return;
  }
  std::ranges::copy(token_classes(fits_[unit].predict(codes), exponent_of(args_.queries)),
                    classes_[unit].begin() + first_position);
}

std::span<const int8_t> TokenRates::classes(size_t unit, int64_t first_position, int64_t tokens) const {
  return std::span(classes_.at(unit)).subspan(static_cast<size_t>(first_position), static_cast<size_t>(tokens));
}

}  // namespace scd
