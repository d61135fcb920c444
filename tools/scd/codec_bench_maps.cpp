#include "tools/scd/codec_bench_maps.h"

#include <cmath>
#include <utility>

#include "common/base/error.h"
#include "common/codec/artifact.h"
#include "common/codec/rd/rd_quantiser.h"
#include "tools/scd/made_up_codec.h"

namespace scd {
namespace {

// Of components that fall to the last ratio that is sent from so many times as much: few escape.
constexpr double kLargest = 8.0, kSmallest = 0.36;

CodecModel made_up_model(const SyntheticShape& shape) {
  CodecModel model{.layers = shape.layers,
                   .kv_heads = static_cast<int32_t>(shape.kv_heads),
                   .head_dim = static_cast<int32_t>(shape.head_dim),
                   .hidden = 0,
                   .rope = {}};
  for (int64_t i = 0; i < shape.head_dim / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(shape.head_dim);
    model.rope.inverse_frequencies.push_back(static_cast<float>(std::pow(10000.0, exponent)));
  }
  return model;
}

// Of the plan and the quantiser that are there.
void make_up_units(CodecBenchMaps& maps) {
  maps.decoder.plan = maps.encoder.plan;
  maps.decoder.quantiser = maps.encoder.quantiser;
  for (size_t i = 0; i < maps.encoder.plan.units.size(); ++i) {
    MadeUpUnit unit = made_up_unit({.producer = maps.producer,
                                    .consumer = maps.consumer,
                                    .plan = maps.encoder.plan,
                                    .unit = i,
                                    .deviations = maps.encoder.quantiser.deviations[i]});
    maps.encoder.units.push_back(std::move(unit.encoder));
    maps.decoder.units.push_back(std::move(unit.decoder));
  }
}

}  // namespace

CodecBenchMaps CodecBenchMaps::of_artifact(const std::filesystem::path& directory) {
  ArtifactEncoder encoder = load_encoder(directory);
  if (encoder.codec != CodecId::kRd) {
    throw Error(ErrorCode::kInvalidArgument, directory.string() + ": not an artifact of codec rd");
  }
  const auto consumers = list_decoders(directory);
  if (consumers.empty()) throw Error(ErrorCode::kNotFound, directory.string() + ": no decoder in it");
  ArtifactDecoder decoder = load_decoder(directory, consumers.front());
  return {std::move(encoder.model), std::move(decoder.model), std::move(encoder.rd), std::move(decoder.rd)};
}

CodecBenchMaps CodecBenchMaps::synthetic(const SyntheticShape& shape) {
  CodecBenchMaps maps;
  maps.producer = maps.consumer = made_up_model(shape);
  maps.encoder.plan = layer_by_layer(shape.layers, 0);
  const std::vector<float> deviations = falling_deviations(shape.components.front(), kLargest, kSmallest);
  std::vector<float> steps;
  for (const int64_t components : shape.components) {
    steps.push_back(deviations[static_cast<size_t>(components - 1)] / (1.001f * kRdSmallestRatio));
  }
  maps.encoder.quantiser =
      made_up_quantiser(std::vector(static_cast<size_t>(shape.layers), deviations), std::move(steps));
  make_up_units(maps);
  return maps;
}

CodecBenchMaps CodecBenchMaps::grouped(const CodecModel& model, int32_t components) {
  constexpr int32_t kGroup = 2;
  CodecBenchMaps maps{.producer = model, .consumer = model, .encoder = {}, .decoder = {}};
  LayerPlan& plan = maps.encoder.plan;
  plan.exact_layers = model.layers % kGroup + kGroup;
  for (int32_t layer = plan.exact_layers; layer < model.layers; layer += kGroup) plan.units.push_back({layer, kGroup});
  const std::vector<float> deviations = falling_deviations(int64_t{kGroup} * components, kLargest, kSmallest);
  maps.encoder.quantiser = made_up_quantiser(std::vector(plan.units.size(), deviations), {1.0f});
  make_up_units(maps);
  return maps;
}

}  // namespace scd
