#include "tools/scd/rd_costs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/codec/registry.h"
#include "common/log/progress.h"
#include "tools/scd/layer_mix.h"
#include "tools/scd/noise_codec.h"

namespace scd {
namespace {

// Noise energy of a measurement, as a share of a layer's own variance: far above rounding, near enough to linear.
constexpr double kNoiseShare = 0.02;

}  // namespace

ErrorCosts measure_error_costs(const Model& model, const ScoredText& text, const RdStatistics& statistics,
                               const ErrorCostOptions& options) {
  const int32_t first = options.first;
  const CodecModel consumer = codec_model_of(model.config());
  const auto layers = static_cast<size_t>(consumer.layers);
  std::vector<LayerNoise> in_keys(layers), in_values(layers);
  for (int32_t layer = first; layer < consumer.layers; ++layer) {
    const RdLayerStatistics& of = statistics.layer(layer);
    in_keys[static_cast<size_t>(layer)].keys = static_cast<float>(std::sqrt(kNoiseShare * of.key_variance));
    in_values[static_cast<size_t>(layer)].values = static_cast<float>(std::sqrt(kNoiseShare * of.value_variance));
  }
  Progress progress("measuring what errors cost, layer by layer");
  LayerMix mix(model, model, text.windows, options.experiment, text.scored);
  std::vector<int32_t> all(layers);
  std::iota(all.begin(), all.end(), 0);
  const auto raw = make_encoder(CodecId::kRaw, consumer, nullptr);
  mix.rebuild(LayerSource::kReuse, *raw, *make_noise_decoder(consumer, in_keys, options.seed), all);
  mix.rebuild(LayerSource::kPatch, *raw, *make_noise_decoder(consumer, in_values, options.seed + 1), all);
  ErrorCosts costs{std::vector<double>(layers), std::vector<double>(layers)};
  std::vector<LayerSource> sources(layers, LayerSource::kTruth);
  for (auto layer = static_cast<size_t>(first); layer < layers; ++layer) {
    // The metrics have trace 1: noise of variance v in every value has energy v.
    sources[layer] = LayerSource::kReuse;
    costs.keys[layer] = mix.mean_kl(sources) / std::pow(double{in_keys[layer].keys}, 2);
    sources[layer] = LayerSource::kPatch;
    costs.values[layer] = mix.mean_kl(sources) / std::pow(double{in_values[layer].values}, 2);
    sources[layer] = LayerSource::kTruth;
    progress.update(static_cast<double>(layer + 1) / static_cast<double>(layers));
  }
  progress.finish();
  return costs;
}

}  // namespace scd
