#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/require.h"

namespace scd::kernels {
namespace {

struct Candidate {
  float logit;
  int32_t id;
};

// The one order of tokens: larger logits first, smaller ids first among equals. It makes every filter deterministic.
bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// A NaN can never be chosen and must not break the order.
float ordered(float logit) { return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit; }

int32_t most_probable(std::span<const float> logits) {
  int32_t best = 0;
  for (size_t id = 1; id < logits.size(); ++id) {
    if (ordered(logits[id]) > ordered(logits[static_cast<size_t>(best)])) best = static_cast<int32_t>(id);
  }
  return best;
}

std::vector<Candidate> all_candidates(std::span<const float> logits) {
  std::vector<Candidate> candidates(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) candidates[id] = {ordered(logits[id]), static_cast<int32_t>(id)};
  return candidates;
}

// The first n in order, sorted; the rest are dropped. Linear in the vocabulary for small n.
void keep_first(std::vector<Candidate>& candidates, size_t n) {
  if (n < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(n), candidates.end(),
                     ranks_before);
    candidates.resize(n);
  }
  std::sort(candidates.begin(), candidates.end(), ranks_before);
}

// Unnormalised probability at the temperature; the largest logit has weight one.
class Weights {
 public:
  Weights(float largest, float temperature) : largest_(largest), inverse_temperature_(1.0 / temperature) {}
  double of(float logit) const { return std::exp((static_cast<double>(logit) - largest_) * inverse_temperature_); }
  double total(std::span<const Candidate> candidates) const {
    double sum = 0.0;
    for (const Candidate& candidate : candidates) sum += of(candidate.logit);
    return sum;
  }

 private:
  double largest_;
  double inverse_temperature_;
};

// Keeps the shortest leading run of the order whose weights reach top_p of the total. Sorts only as many leading
// candidates as that needs, in growing slices.
void keep_top_p(std::vector<Candidate>& candidates, const Weights& weights, double top_p) {
  const double wanted = top_p * weights.total(candidates);
  double sum = 0.0;
  size_t sorted = 0;
  while (sorted < candidates.size()) {
    const size_t slice_end = std::min(candidates.size(), std::max<size_t>(64, sorted * 8));
    const auto first = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto last = candidates.begin() + static_cast<std::ptrdiff_t>(slice_end);
    std::nth_element(first, last - 1, candidates.end(), ranks_before);
    std::sort(first, last, ranks_before);
    for (; sorted < slice_end; ++sorted) {
      sum += weights.of(candidates[sorted].logit);
      if (sum >= wanted) {
        candidates.resize(sorted + 1);
        return;
      }
    }
  }
}

int32_t draw(std::span<const Candidate> candidates, const Weights& weights, double uniform) {
  const double threshold = uniform * weights.total(candidates);
  double sum = 0.0;
  int32_t last_possible = candidates.front().id;
  for (const Candidate& candidate : candidates) {
    const double weight = weights.of(candidate.logit);
    if (weight == 0.0) continue;
    sum += weight;
    last_possible = candidate.id;
    if (sum > threshold) break;
  }
  return last_possible;
}

void check_options(const SamplingOptions& options, double uniform) {
  require(options.temperature >= 0.0f && std::isfinite(options.temperature),
          "sample: the temperature must be zero or a positive number");
  require(options.top_k >= 0, "sample: top_k ", static_cast<int64_t>(options.top_k), " is negative");
  require(options.top_p > 0.0f && options.top_p <= 1.0f, "sample: top_p must lie in (0, 1]");
  require(options.min_p >= 0.0f && options.min_p <= 1.0f, "sample: min_p must lie in [0, 1]");
  require(uniform >= 0.0 && uniform < 1.0, "sample: the random number must lie in [0, 1)");
}

double log_sum_exp(std::span<const float> logits, double largest) {
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(static_cast<double>(ordered(logit)) - largest);
  return largest + std::log(sum);
}

}  // namespace

int32_t sample(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  require(!logits.empty(), "sample: no logits");
  check_options(options, uniform);
  const int32_t best = most_probable(logits);
  const float largest = ordered(logits[static_cast<size_t>(best)]);
  if (options.temperature == 0.0f || !std::isfinite(largest)) return best;
  const Weights weights(largest, options.temperature);
  std::vector<Candidate> candidates = all_candidates(logits);
  if (options.top_k > 0) keep_first(candidates, static_cast<size_t>(options.top_k));
  if (options.top_p < 1.0f) keep_top_p(candidates, weights, options.top_p);
  if (options.min_p > 0.0f) {
    std::erase_if(candidates, [&](const Candidate& candidate) { return weights.of(candidate.logit) < options.min_p; });
  }
  return draw(candidates, weights, uniform);
}

float log_probability(std::span<const float> logits, int32_t id) {
  require(id >= 0 && static_cast<size_t>(id) < logits.size(), "log_probability: id ", static_cast<int64_t>(id),
          " is outside ", static_cast<int64_t>(logits.size()), " logits");
  const double largest = ordered(logits[static_cast<size_t>(most_probable(logits))]);
  return static_cast<float>(ordered(logits[static_cast<size_t>(id)]) - log_sum_exp(logits, largest));
}

std::vector<TokenProbability> top_log_probabilities(std::span<const float> logits, int32_t n) {
  require(n >= 0, "top_log_probabilities: ", static_cast<int64_t>(n), " tokens asked for");
  if (logits.empty() || n == 0) return {};
  std::vector<Candidate> candidates = all_candidates(logits);
  keep_first(candidates, static_cast<size_t>(n));
  const double normaliser = log_sum_exp(logits, candidates.front().logit);
  std::vector<TokenProbability> top;
  top.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    top.push_back({candidate.id, static_cast<float>(candidate.logit - normaliser)});
  }
  return top;
}

}  // namespace scd::kernels
