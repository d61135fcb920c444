// Compiled so that the exponentials vectorise; sums are in double.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "tools/scd/cache_experiment.h"

namespace scd {
namespace {

float largest(std::span<const float> values) {
  float result = values[0];
  for (const float value : values) result = std::max(result, value);
  return result;
}

}  // namespace

double kl_divergence(std::span<const float> truth, std::span<const float> other) {
  SCD_CHECK(!truth.empty() && truth.size() == other.size(), "distributions over one vocabulary");
  const float truth_top = largest(truth);
  const float other_top = largest(other);
  double truth_sum = 0;
  double other_sum = 0;
  double weighted = 0;  // sum of exp(t - top) ((t - top) - (o - top))
  for (size_t i = 0; i < truth.size(); ++i) {
    const float t = truth[i] - truth_top;
    const float o = other[i] - other_top;
    const float weight = std::exp(t);
    truth_sum += weight;
    other_sum += std::exp(o);
    weighted += static_cast<double>(weight) * (static_cast<double>(t) - static_cast<double>(o));
  }
  return std::max(0.0, weighted / truth_sum - std::log(truth_sum) + std::log(other_sum));
}

std::vector<double> kl_divergence(const Continuation& truth, const Continuation& other) {
  return kl_divergence(truth, kernels::matrix(other.logits.data(), other.rows, other.vocab));
}

std::vector<double> kl_divergence(const Continuation& truth, kernels::ConstMatrix other) {
  SCD_CHECK(truth.rows == other.rows && truth.vocab == other.columns, "continuations of the same tokens");
  std::vector<double> divergence(static_cast<size_t>(truth.rows));
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < truth.rows; ++row) {
    const std::span<const float> values(other.row<float>(row), static_cast<size_t>(other.columns));
    divergence[static_cast<size_t>(row)] = kl_divergence(truth.row(row), values);
  }
  return divergence;
}

}  // namespace scd
