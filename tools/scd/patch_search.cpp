#include "tools/scd/patch_search.h"

#include <algorithm>
#include <limits>

namespace scd {

std::vector<LayerGain> rank_layers(LayerMix& mix, int32_t layers, bool exact_layer0, double reuse_kl,
                                   const std::function<void(double)>& progress) {
  std::vector<LayerSource> sources(static_cast<size_t>(layers), LayerSource::kReuse);
  std::vector<LayerGain> gains;
  for (int32_t layer = exact_layer0 ? 1 : 0; layer < layers; ++layer) {
    sources[static_cast<size_t>(layer)] = LayerSource::kTruth;
    gains.push_back({layer, reuse_kl - mix.mean_kl(sources)});
    sources[static_cast<size_t>(layer)] = LayerSource::kReuse;
    if (progress) progress(static_cast<double>(layer + 1) / layers);
  }
  std::stable_sort(gains.begin(), gains.end(), [](const LayerGain& a, const LayerGain& b) { return a.gain > b.gain; });
  return gains;
}

std::vector<PatchStep> search_greedily(LayerMix& mix, std::span<const int32_t> pool, const PatchCost& cost,
                                       const GreedyOptions& options, double reuse_kl,
                                       const std::function<void(double)>& progress) {
  std::vector<LayerSource> sources(static_cast<size_t>(options.layers), LayerSource::kReuse);
  std::vector<int32_t> left(pool.begin(), pool.end());
  std::vector<int32_t> chosen;
  std::vector<PatchStep> steps;
  double current = reuse_kl;
  const int32_t most = std::min<int32_t>(options.max_steps, static_cast<int32_t>(pool.size()));
  while (static_cast<int32_t>(steps.size()) < most) {
    PatchStep best{0, std::numeric_limits<double>::infinity(), 0};
    for (const int32_t layer : left) {
      sources[static_cast<size_t>(layer)] = LayerSource::kPatch;
      const double kl = mix.mean_kl(sources);
      sources[static_cast<size_t>(layer)] = LayerSource::kReuse;
      if (kl < best.kl) best = {layer, kl, 0};
    }
    if (options.stop_without_gain && best.kl >= current) break;
    current = best.kl;
    sources[static_cast<size_t>(best.layer)] = LayerSource::kPatch;
    std::erase(left, best.layer);
    chosen.push_back(best.layer);
    best.bytes_per_token = cost(chosen);
    steps.push_back(best);
    if (progress) progress(static_cast<double>(steps.size()) / most);
  }
  return steps;
}

int32_t choose_budget(std::span<const PatchStep> steps, double reuse_kl, double reuse_bytes_per_token, double max_kl) {
  const bool limited = max_kl > 0;
  int32_t best = 0;
  double best_score = 0;
  int32_t lowest = 0;
  double lowest_kl = reuse_kl;
  bool met = limited && reuse_kl <= max_kl;
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto k = static_cast<int32_t>(i + 1);
    const double relative_cost = steps[i].bytes_per_token / reuse_bytes_per_token;
    const double score = (reuse_kl - steps[i].kl) / (relative_cost * k);
    if (steps[i].kl < lowest_kl) {
      lowest_kl = steps[i].kl;
      lowest = k;
    }
    if (limited && steps[i].kl > max_kl) continue;
    const bool first_to_meet = limited && !met;
    met = met || limited;
    if (first_to_meet || score > best_score) {
      best = k;
      best_score = score;
    }
  }
  return limited && !met ? lowest : best;
}

}  // namespace scd
