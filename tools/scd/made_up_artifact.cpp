#include "tools/scd/made_up_artifact.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/codec/artifact.h"
#include "common/codec/calibration/rate_fit.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/rd/rd_state.h"
#include "common/log/progress.h"
#include "common/model/fingerprint.h"
#include "common/model/model_config.h"
#include "kernels/elementwise.h"
#include "tools/scd/rd_calibration.h"

namespace scd {
namespace {

struct Side {
  ModelIdentity identity;
  CodecModel model;
};

Side side_of(const std::filesystem::path& directory) {
  const ModelConfig config = ModelConfig::from_directory(directory);
  const ModelFingerprint fingerprint = fingerprint_model(directory, std::nullopt);
  return {{fingerprint.weights, fingerprint.tokenizer, fingerprint.rope},
          {config.layers, config.kv_heads, config.head_dim, config.hidden, config.rope}};
}

DenseMatrix normal_matrix(int64_t rows, int64_t columns, uint64_t seed, float deviation) {
  DenseMatrix matrix(rows, columns);
  kernels::fill_normal(matrix.view(), seed, deviation);
  return matrix;
}

constexpr uint64_t kSeeds = 1'000'003;  // apart from those of models with random weights: theirs are small numbers

// Deviations of components fall by a factor of e over all of a state. Such a normal component costs about log2 of
// deviation / step and two bits more, and the last one that is sent has the least ratio that is.
constexpr double kFall = 1.0;
double bits_of(double components, double width) {
  const double last = std::log2(kRdSmallestRatio) + 2.05;
  return components * (last + kFall * components / width / (2 * std::log(2.0)));
}

int64_t components_of(double bits, int64_t width) {
  int64_t components = 1;
  while (components < width && bits_of(static_cast<double>(components), static_cast<double>(width)) < bits) {
    ++components;
  }
  return components;
}

// Steps by which the widest unit has the ratios; the others have nearly the same.
RdQuantiserSettings made_up_quantiser(const LayerPlan& plan, const CodecModel& consumer,
                                      const MadeUpArtifactOptions& options) {
  RdQuantiserSettings settings;
  int64_t widest = 0;
  for (const CodedUnit& unit : plan.units) widest = std::max(widest, rd_state_width(consumer, unit));
  const auto deviation = [](int64_t component, int64_t width) {
    return static_cast<float>(std::exp(-kFall * static_cast<double>(component) / static_cast<double>(width)));
  };
  int64_t most = 0;
  for (const double ratio : options.ratios) {
    const int64_t components = components_of(16.0 * static_cast<double>(widest) / ratio, widest);
    settings.steps.push_back(deviation(components - 1, widest) / (1.001f * kRdSmallestRatio));
    most = std::max(most, components);
  }
  for (const CodedUnit& unit : plan.units) {
    const int64_t width = rd_state_width(consumer, unit);
    std::vector<float>& deviations = settings.deviations.emplace_back();
    for (int64_t i = 0; i < std::min(width, most * width / widest + 1); ++i) deviations.push_back(deviation(i, width));
  }
  const DenseMatrix normal = normal_matrix(1, 1 << 16, options.seed, 1.0f);
  const ComponentSample sample{normal.values, 1.0f};
  train_tables(std::span(&sample, 1), settings);
  return settings;
}

// Rows of unit length over an anchor of mean square 1, times the deviations: codes have those. Without an anchor keys
// and values are taken for as large.
RdUnitEncoder made_up_encoder(const std::vector<float>& deviations, int64_t source_width, int64_t anchor_width,
                              uint64_t seed) {
  const auto rows = static_cast<int64_t>(deviations.size());
  DenseMatrix map(rows, source_width + anchor_width);
  const int64_t seen = anchor_width > 0 ? anchor_width : source_width;
  const int64_t first = map.columns - seen;
  const DenseMatrix directions = normal_matrix(rows, seen, seed, 1.0f / std::sqrt(static_cast<float>(seen)));
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const float deviation = deviations[static_cast<size_t>(row)];
    for (int64_t i = 0; i < seen; ++i) map.at(row, first + i) = deviation * directions.at(row, i);
  }
  return {std::move(map), std::vector<float>(deviations.size())};
}

}  // namespace

LayerPlan write_made_up_artifact(const MadeUpArtifactOptions& options) {
  if (!std::ranges::is_sorted(options.ratios) || options.ratios.size() > kRdMaxLevels) {
    throw Error(ErrorCode::kInvalidArgument, "--ratios: expected at most 16 numbers that rise");
  }
  const Side producer = side_of(options.producer), consumer = side_of(options.consumer);
  ArtifactEncoder encoder;
  ArtifactDecoder decoder;
  encoder.codec = decoder.codec = CodecId::kRd;
  encoder.producer = decoder.producer = producer.identity;
  encoder.fitted_with = consumer.identity.weights;
  decoder.consumer = consumer.identity;
  encoder.model = decoder.producer_model = producer.model;
  decoder.model = consumer.model;
  encoder.calibration.seed = decoder.calibration.seed = options.seed;
  const LayerPlan plan =
      make_plan({options.exact_layers, options.group, {}, options.exact_layers > 0}, consumer.model.layers);
  encoder.rd.plan = decoder.rd.plan = plan;
  encoder.rd.quantiser = decoder.rd.quantiser = made_up_quantiser(plan, consumer.model, options);
  Progress progress("making maps up");
  for (size_t i = 0; i < plan.units.size(); ++i) {
    const UnitSource source = source_of(plan, i, {producer.model.layers, consumer.model.layers});
    if (producer.model.layers != consumer.model.layers) encoder.rd.sources.push_back(source);
    const std::vector<float>& deviations = encoder.rd.quantiser.deviations[i];
    const bool anchored = plan.anchor_of(i) >= 0;
    const auto components = static_cast<int64_t>(deviations.size());
    const int64_t width = rd_state_width(consumer.model, plan.units[i]);
    const uint64_t seed = kSeeds * options.seed + 3 * i;
    encoder.rd.units.push_back(made_up_encoder(deviations, rd_source_width(producer.model, plan.units[i], source),
                                               anchored ? producer.model.hidden : 0, seed));
    const int64_t directions = anchored ? consumer.model.hidden : 0;
    const float gain = 1.0f / std::sqrt(static_cast<float>(components + directions));
    decoder.rd.units.push_back({.map = normal_matrix(components, width, seed + 1, gain),
                                .anchor_map = normal_matrix(directions, width, seed + 2, gain),
                                .mean = std::vector<float>(static_cast<size_t>(width))});
    progress.update(static_cast<double>(i + 1) / static_cast<double>(plan.units.size()));
  }
  const double raw = 4.0 * static_cast<double>(consumer.model.kv_width()) * (consumer.model.layers - 1);
  for (const double ratio : options.ratios) {
    // No loss constraint is met by what was never measured.
    decoder.levels.push_back({.bytes_per_token = raw / ratio, .ratio_to_bf16 = ratio, .kl = 1e9, .kl_upper = 1e9});
  }
  decoder.prediction = decoder.levels.front();
  write_artifact(options.out, encoder, decoder);
  return plan;
}

}  // namespace scd
