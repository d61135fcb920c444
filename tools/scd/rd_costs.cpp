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

constexpr int32_t kLongestAnswer = 24;

// Validation text, questions followed by what the consumer itself answers; scored: the tokens that predict an answer.
struct ScoredWindows {
  std::vector<TokenWindow> windows;
  std::vector<int64_t> scored;
};

ScoredWindows answered_by(const Model& consumer, const CalibrationText& text, const CacheExperimentOptions& options) {
  ScoredWindows answered;
  size_t longest = 0;
  for (const TokenWindow& window : text.validation) longest = std::max(longest, window.size());
  CacheExperiment experiment(consumer, consumer, static_cast<int64_t>(longest) + kLongestAnswer, options);
  for (size_t i = 0; i < text.validation.size(); ++i) {
    const TokenWindow& window = text.validation[i];
    const size_t prompt = i < text.validation_prompts.size() ? text.validation_prompts[i] : 0;
    if (prompt == 0) {
      answered.windows.push_back(window);
      answered.scored.push_back(std::ssize(window) - handover_tokens(std::ssize(window), options.suffix));
      continue;
    }
    TokenWindow asked(window.begin(), window.begin() + static_cast<std::ptrdiff_t>(prompt));
    experiment.set_prompt(asked, {});
    const std::vector<TokenId> answer =
        experiment.generate(kLongestAnswer, [&](TokenId id) { return std::ranges::binary_search(text.line_ends, id); });
    // The prompt's last token predicts the answer's first, and so on: the answer's last predicts nothing that counts.
    asked.insert(asked.end(), answer.begin(), answer.end() - 1);
    answered.windows.push_back(std::move(asked));
    answered.scored.push_back(std::ssize(answer));
  }
  return answered;
}

}  // namespace

ErrorCosts measure_error_costs(const CalibrationInput& input, const RdStatistics& statistics,
                               const ErrorCostOptions& options) {
  const int32_t first = options.first;
  const CodecModel consumer = codec_model_of(input.consumer.config());
  const auto layers = static_cast<size_t>(consumer.layers);
  std::vector<LayerNoise> in_keys(layers), in_values(layers);
  for (int32_t layer = first; layer < consumer.layers; ++layer) {
    const RdLayerStatistics& of = statistics.layer(layer);
    in_keys[static_cast<size_t>(layer)].keys = static_cast<float>(std::sqrt(kNoiseShare * of.key_variance));
    in_values[static_cast<size_t>(layer)].values = static_cast<float>(std::sqrt(kNoiseShare * of.value_variance));
  }
  Progress progress("measuring what errors cost, layer by layer");
  const ScoredWindows text = options.on_answers ? answered_by(input.consumer, input.text, options.experiment)
                                                : ScoredWindows{input.text.validation, {}};
  LayerMix mix(input.consumer, input.consumer, text.windows, options.experiment, text.scored);
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
