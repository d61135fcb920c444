#include "tools/scd/codec_bench_maps.h"

#include <cmath>
#include <span>
#include <utility>

#include "common/base/error.h"
#include "common/codec/artifact.h"
#include "common/codec/calibration/rate_fit.h"
#include "common/codec/rd/rd_quantiser.h"
#include "kernels/elementwise.h"

namespace scd {
namespace {

void make_up_tables(RdQuantiserSettings& quantiser) {
  const DenseMatrix normal = normal_matrix(1, 1 << 16, 1);
  const ComponentSample sample{normal.values, 1.0f};
  train_tables({&sample, 1}, quantiser);
}

// Deviations fall geometrically, and steps so that each level sends the components asked for.
void make_up_rates(const SyntheticShape& shape, RdQuantiserSettings& quantiser) {
  constexpr float kFall = 0.97f;
  std::vector<float> deviations;
  for (int64_t i = 0; i < shape.components.front(); ++i) deviations.push_back(std::pow(kFall, static_cast<float>(i)));
  for (const int64_t components : shape.components) {
    quantiser.steps.push_back(deviations[static_cast<size_t>(components - 1)] / (1.001f * kRdSmallestRatio));
  }
  quantiser.deviations.assign(static_cast<size_t>(shape.layers), deviations);
  make_up_tables(quantiser);
}

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

// Codes of normally distributed numbers have the calibrated deviations.
RdUnitEncoder made_up_encoder(const std::vector<float>& deviations, int64_t inputs, uint32_t seed) {
  DenseMatrix map = normal_matrix(std::ssize(deviations), inputs, seed, 1.0f / std::sqrt(static_cast<float>(inputs)));
  for (int64_t row = 0; row < map.rows; ++row) {
    for (int64_t i = 0; i < inputs; ++i) map.at(row, i) *= deviations[static_cast<size_t>(row)];
  }
  return {std::move(map), std::vector<float>(deviations.size())};
}

}  // namespace

DenseMatrix normal_matrix(int64_t rows, int64_t columns, uint32_t seed, float deviation) {
  DenseMatrix matrix(rows, columns);
  if (!matrix.empty()) kernels::fill_normal(matrix.view(), seed, deviation);
  return matrix;
}

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
  maps.encoder.plan = maps.decoder.plan = layer_by_layer(shape.layers, 0);
  make_up_rates(shape, maps.encoder.quantiser);
  maps.decoder.quantiser = maps.encoder.quantiser;
  const int64_t width = 2 * maps.producer.kv_width();
  uint32_t seed = 2;
  for (const std::vector<float>& deviations : maps.encoder.quantiser.deviations) {
    maps.encoder.units.push_back(made_up_encoder(deviations, width, seed++));
    maps.decoder.units.push_back(
        {normal_matrix(std::ssize(deviations), width, seed++), {}, std::vector<float>(static_cast<size_t>(width))});
  }
  return maps;
}

CodecBenchMaps CodecBenchMaps::grouped(const CodecModel& model, int32_t components) {
  constexpr int32_t kGroup = 2;
  constexpr float kLargest = 8.0f, kSmallest = 0.36f;
  CodecBenchMaps maps{.producer = model, .consumer = model, .encoder = {}, .decoder = {}};
  LayerPlan plan{.exact_layers = model.layers % kGroup + kGroup, .units = {}};
  for (int32_t layer = plan.exact_layers; layer < model.layers; layer += kGroup) plan.units.push_back({layer, kGroup});
  std::vector<float> deviations;
  const int32_t sent = kGroup * components;
  for (int32_t i = 0; i < sent; ++i) {
    deviations.push_back(kLargest * std::pow(kSmallest / kLargest, static_cast<float>(i) / static_cast<float>(sent)));
  }
  RdQuantiserSettings quantiser;
  quantiser.steps = {1.0f};
  quantiser.deviations.assign(plan.units.size(), deviations);
  make_up_tables(quantiser);
  const int64_t state = 2 * model.kv_width() * kGroup;
  const auto map_to_state = [&](int64_t rows) {
    return normal_matrix(rows, state, 1, 1.0f / std::sqrt(static_cast<float>(rows)));
  };
  const size_t units = plan.units.size();
  const RdUnitDecoder decoder{map_to_state(sent), map_to_state(model.hidden),
                              std::vector<float>(static_cast<size_t>(state))};
  maps.encoder = {plan, {}, std::vector(units, made_up_encoder(deviations, state + model.hidden, 1)), quantiser};
  maps.decoder = {plan, std::vector(units, decoder), quantiser};
  return maps;
}

}  // namespace scd
