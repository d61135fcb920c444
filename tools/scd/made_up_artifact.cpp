#include "tools/scd/made_up_artifact.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/codec/artifact.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/rd/rd_state.h"
#include "common/log/progress.h"
#include "common/model/fingerprint.h"
#include "common/model/model_config.h"
#include "tools/scd/made_up_codec.h"
#include "tools/scd/rd_calibration.h"

namespace scd {
namespace {

// Deviations of components fall by a factor of e over all of a state. Such a normal component costs about log2 of
// deviation / step and two bits more, and the last one that is sent has the least ratio that is.
double bits_of(int64_t components, int64_t width) {
  const double last = std::log2(kRdSmallestRatio) + 2.05;
  const double share = static_cast<double>(components) / static_cast<double>(width);
  return static_cast<double>(components) * (last + share / (2 * std::log(2.0)));
}

int64_t components_of(double bits, int64_t width) {
  int64_t components = 1;
  while (components < width && bits_of(components, width) < bits) ++components;
  return components;
}

// Steps by which the widest unit has the ratios; the others have nearly the same.
RdQuantiserSettings quantiser_of(const LayerPlan& plan, const CodecModel& consumer, std::span<const double> ratios) {
  int64_t widest = 0;
  for (const CodedUnit& unit : plan.units) widest = std::max(widest, rd_state_width(consumer, unit));
  const std::vector<float> all = falling_deviations(widest, 1.0, std::exp(-1.0));
  std::vector<float> steps;
  int64_t most = 0;
  for (const double ratio : ratios) {
    const int64_t components = components_of(16.0 * static_cast<double>(widest) / ratio, widest);
    steps.push_back(all[static_cast<size_t>(components - 1)] / (1.001f * kRdSmallestRatio));
    most = std::max(most, components);
  }
  std::vector<std::vector<float>> deviations;
  for (const CodedUnit& unit : plan.units) {
    const int64_t width = rd_state_width(consumer, unit);
    deviations.push_back(falling_deviations(width, 1.0, std::exp(-1.0)));
    deviations.back().resize(static_cast<size_t>(std::min(width, most * width / widest + 1)));
  }
  return made_up_quantiser(std::move(deviations), std::move(steps));
}

// What its payloads will have, by the same count. No loss constraint is met by what was never measured.
std::vector<CodecPrediction> predictions(const LayerPlan& plan, const CodecModel& consumer,
                                         const RdQuantiserSettings& settings) {
  const RdQuantiser quantiser(settings);
  const double raw =
      4.0 * static_cast<double>(consumer.kv_width()) * static_cast<double>(consumer.layers - plan.exact_layers);
  std::vector<CodecPrediction> levels;
  for (int32_t level = 0; level < quantiser.levels(); ++level) {
    double bits = 0;
    for (size_t i = 0; i < plan.units.size(); ++i) {
      bits += bits_of(quantiser.components(static_cast<int32_t>(i), level), rd_state_width(consumer, plan.units[i]));
    }
    levels.push_back({.bytes_per_token = bits / 8, .ratio_to_bf16 = 8 * raw / bits, .kl = 1e9, .kl_upper = 1e9});
  }
  return levels;
}

CodecModel model_of(const std::filesystem::path& directory) {
  const ModelConfig config = ModelConfig::from_directory(directory);
  return {config.layers, config.kv_heads, config.head_dim, config.hidden, config.rope};
}

ModelIdentity identity_of(const std::filesystem::path& directory) {
  const ModelFingerprint fingerprint = fingerprint_model(directory, std::nullopt);
  return {fingerprint.weights, fingerprint.tokenizer, fingerprint.rope};
}

void check(const MadeUpArtifactOptions& options) {
  const auto fits = [](double ratio) { return ratio >= kLeastMadeUpRatio && ratio <= kMostMadeUpRatio; };
  if (options.ratios.empty() || options.ratios.size() > kRdMaxLevels || !std::ranges::all_of(options.ratios, fits) ||
      std::ranges::adjacent_find(options.ratios, std::greater_equal{}) != options.ratios.end()) {
    throw Error(ErrorCode::kInvalidArgument, "--ratios: expected at most 16 numbers that rise, from 13 to 10000");
  }
  if (std::filesystem::exists(options.out)) {
    throw Error(ErrorCode::kAlreadyExists, options.out.string() + " is there already; choose another --out");
  }
}

}  // namespace

LayerPlan write_made_up_artifact(const MadeUpArtifactOptions& options) {
  check(options);
  ArtifactEncoder encoder;
  ArtifactDecoder decoder;
  encoder.codec = decoder.codec = CodecId::kRd;
  encoder.model = decoder.producer_model = model_of(options.producer);
  decoder.model = model_of(options.consumer);
  encoder.rd.plan = decoder.rd.plan =
      make_plan({options.exact_layers, options.group, {}, options.exact_layers > 0}, decoder.model.layers);
  const LayerPlan& plan = encoder.rd.plan;
  encoder.producer = decoder.producer = identity_of(options.producer);
  decoder.consumer = identity_of(options.consumer);
  if (encoder.producer.tokenizer != decoder.consumer.tokenizer) {
    throw Error(ErrorCode::kFailedPrecondition, "producer and consumer have different tokenizers: " +
                                                    encoder.producer.tokenizer + " and " + decoder.consumer.tokenizer);
  }
  encoder.fitted_with = decoder.consumer.weights;
  encoder.calibration.seed = decoder.calibration.seed = options.seed;
  encoder.rd.quantiser = decoder.rd.quantiser = quantiser_of(plan, decoder.model, options.ratios);
  Progress progress("making maps up");
  for (size_t i = 0; i < plan.units.size(); ++i) {
    if (encoder.model.layers != decoder.model.layers) {
      encoder.rd.sources.push_back(source_of(plan, i, {encoder.model.layers, decoder.model.layers}));
    }
    MadeUpUnit unit = made_up_unit({.producer = encoder.model,
                                    .consumer = decoder.model,
                                    .plan = plan,
                                    .unit = i,
                                    .deviations = encoder.rd.quantiser.deviations[i],
                                    .seed = options.seed});
    encoder.rd.units.push_back(std::move(unit.encoder));
    decoder.rd.units.push_back(std::move(unit.decoder));
    progress.update(static_cast<double>(i + 1) / static_cast<double>(plan.units.size()));
  }
  decoder.levels = predictions(plan, decoder.model, encoder.rd.quantiser);
  decoder.prediction = decoder.levels.front();
  write_artifact(options.out, encoder, decoder);
  return plan;
}

}  // namespace scd
