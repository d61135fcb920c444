// A pass over the vocabulary finds the few tokens that may be drawn; only those are put in order.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu_kernels.h"
#include "kernels/lanes.h"
#include "kernels/sampling_limits.h"

namespace scd::kernels::cpu {
namespace {

// Sum of e^((x - largest) * factor) over lowest <= x <= largest, NaN left out; single-precision terms, runs of them
// summed in double.
double sum_exponentials(std::span<const float> x, float lowest, float largest, float factor) {
  constexpr size_t kRun = 256;  // single-precision partial sums stay this short
  double sum = 0.0;
  for (size_t first = 0; first < x.size(); first += kRun) {
    const size_t count = std::min(kRun, x.size() - first);
    float run[kRun];
    std::copy_n(x.data() + first, count, run);
    std::fill(run + count, run + kRun, -std::numeric_limits<float>::infinity());
    Lanes partial{};
    for (size_t i = 0; i < kRun; i += kLanes) {
      const Lanes value = load(run + i);
      const Lanes weight = exponential((value - largest) * factor);
      partial += value >= broadcast(lowest) ? weight : Lanes{};
    }
    sum += sum_of(partial);
  }
  return sum;
}

// The one order of tokens: larger logits first, smaller ids first among equals. It makes every filter deterministic.
bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// A comparison with NaN is false, so NaN never becomes the largest.
float largest_of(std::span<const float> logits) {
  const auto count = static_cast<int64_t>(logits.size());
  Lanes largest = broadcast(-std::numeric_limits<float>::infinity());
  int64_t id = 0;
  for (; id + kLanes <= count; id += kLanes) {
    const Lanes next = load(logits.data() + id);
    largest = next > largest ? next : largest;
  }
  float result = -std::numeric_limits<float>::infinity();
  for (int64_t lane = 0; lane < kLanes; ++lane) result = std::max(result, static_cast<float>(largest[lane]));
  for (; id < count; ++id) result = std::max(result, ordered(logits[static_cast<size_t>(id)]));
  return result;
}

// The first of those with the largest logit; 0 where there is none.
int32_t most_probable(std::span<const float> logits) {
  const float largest = largest_of(logits);
  if (largest == -std::numeric_limits<float>::infinity()) return 0;
  return static_cast<int32_t>(std::ranges::find(logits, largest) - logits.begin());
}

// The tokens whose logit is at least `lowest`.
void collect(std::span<const float> logits, float lowest, std::vector<Candidate>& candidates) {
  candidates.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] >= lowest) candidates.push_back({logits[id], static_cast<int32_t>(id)});
  }
}

// Returns the lowest logit that is `enough` among those that sampling_limits.h looks at.
template <class Enough>
float lowest_leading(float largest, Enough enough) {
  for (int step = 0; step < kLeadingSteps; ++step) {
    const float lowest = largest - leading_distance(step);
    if (enough(lowest)) return lowest;
  }
  return -std::numeric_limits<float>::infinity();
}

void collect_first(std::span<const float> logits, float largest, size_t n, std::vector<Candidate>& candidates) {
  collect(logits,
          lowest_leading(largest,
                         [&](float lowest) {
                           return static_cast<size_t>(
                                      std::ranges::count_if(logits, [lowest](float x) { return x >= lowest; })) >= n;
                         }),
          candidates);
}

// The first n in order, sorted; the rest are dropped.
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
  double total(std::span<const float> logits, float lowest) const {
    const auto factor = static_cast<float>(std::min<double>(inverse_temperature_, std::numeric_limits<float>::max()));
    return sum_exponentials(logits, lowest, static_cast<float>(largest_), factor);
  }

 private:
  double largest_;
  double inverse_temperature_;
};

// Keeps the shortest run of the order whose weights reach `wanted`, sorting no more of it than that needs.
void keep_mass(std::vector<Candidate>& candidates, const Weights& weights, double wanted) {
  double sum = 0.0;
  size_t sorted = 0;
  while (sorted < candidates.size()) {
    const size_t slice_end = std::min(candidates.size(), std::max<size_t>(64, sorted * 4));
    const auto first = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto last = candidates.begin() + static_cast<std::ptrdiff_t>(slice_end);
    std::nth_element(first, last - 1, candidates.end(), ranks_before);
    std::sort(first, last, ranks_before);
    for (; sorted < slice_end; ++sorted) {
      sum += weights.of(candidates[sorted].logit);
      if (sum >= wanted) return candidates.resize(sorted + 1);
    }
  }
}

// Candidates that top_k and top_p may leave; returns what all tokens weigh, where top_p counts by that.
double collect_leading(std::span<const float> logits, float largest, const SamplingOptions& options,
                       std::vector<Candidate>& candidates) {
  if (options.top_k > 0) {
    collect_first(logits, largest, static_cast<size_t>(options.top_k), candidates);
    return 0.0;
  }
  const Weights weights(largest, options.temperature);
  const double total = weights.total(logits, -std::numeric_limits<float>::infinity());
  const double wanted = wanted_weight(total, options.top_p);
  collect(logits, lowest_leading(largest, [&](float lowest) { return weights.total(logits, lowest) >= wanted; }),
          candidates);
  return total;
}

// In the order of ids.
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

// Leaves what top_k and top_p ask for, in the order of ids.
void filter_by_rank(std::span<const float> logits, float largest, const SamplingOptions& options,
                    std::vector<Candidate>& candidates) {
  const Weights weights(largest, options.temperature);
  double total = collect_leading(logits, largest, options, candidates);
  if (options.top_k > 0) {
    keep_first(candidates, static_cast<size_t>(options.top_k));
    total = weights.total(candidates);
  }
  if (options.top_p < 1.0f) keep_mass(candidates, weights, options.top_p * total);
  std::ranges::sort(candidates, {}, &Candidate::id);
}

double log_sum_exp(std::span<const float> logits, double largest) {
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(static_cast<double>(ordered(logit)) - largest);
  return largest + std::log(sum);
}

}  // namespace

int32_t sample(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  const int32_t best = most_probable(logits);
  const float largest = ordered(logits[static_cast<size_t>(best)]);
  if (options.temperature == 0.0f || !std::isfinite(largest)) return best;
  thread_local std::vector<Candidate> candidates;  // a token a step: keep the memory
  const float lowest = largest - reach_of(options);
  if (filters_by_rank(options)) {
    filter_by_rank(logits, largest, options, candidates);
    std::erase_if(candidates, [lowest](const Candidate& c) { return c.logit < lowest; });
  } else {
    collect(logits, lowest, candidates);
  }
  return draw(candidates, Weights(largest, options.temperature), uniform);
}

void sample_rows(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms,
                 std::span<int32_t> ids) {
  for (size_t r = 0; r < ids.size(); ++r) {
    const auto* row = logits.row<float>(static_cast<int64_t>(r));
    ids[r] = cpu::sample({row, static_cast<size_t>(logits.columns)}, options[r], uniforms[r]);
  }
}

void change_logits(Matrix logits, std::span<const LogitChange> changes) {
  for (const LogitChange& change : changes) {
    float& logit = logits.row<float>(change.row)[change.id];
    logit = changed(logit, change.penalty, change.bias);
  }
}

float log_probability(std::span<const float> logits, int32_t id) {
  const double largest = ordered(logits[static_cast<size_t>(most_probable(logits))]);
  return static_cast<float>(ordered(logits[static_cast<size_t>(id)]) - log_sum_exp(logits, largest));
}

std::vector<TokenProbability> top_log_probabilities(std::span<const float> logits, int32_t n) {
  const float largest = ordered(logits[static_cast<size_t>(most_probable(logits))]);
  const auto wanted = std::min(logits.size(), static_cast<size_t>(n));
  std::vector<Candidate> candidates;
  collect_first(logits, largest, wanted, candidates);
  keep_first(candidates, wanted);
  if (candidates.empty()) return {};
  const double normaliser = log_sum_exp(logits, candidates.front().logit);
  std::vector<TokenProbability> top;
  top.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    top.push_back({candidate.id, static_cast<float>(candidate.logit - normaliser)});
  }
  return top;
}

}  // namespace scd::kernels::cpu
