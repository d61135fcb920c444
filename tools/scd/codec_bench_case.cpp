#include "tools/scd/codec_bench_case.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>

#include "common/base/error.h"
#include "common/codec/artifact.h"
#include "common/codec/calibration/rate_fit.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/rd/rd_state.h"
#include "common/codec/registry.h"
#include "kernels/linear.h"

namespace scd {
namespace {

DenseMatrix normal_matrix(int64_t rows, int64_t columns, std::mt19937& random) {
  std::normal_distribution<float> normal;
  DenseMatrix matrix(rows, columns);
  for (float& value : matrix.values) value = normal(random);
  return matrix;
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
  std::mt19937 random(1);
  const DenseMatrix normal = normal_matrix(1, 1 << 16, random);
  const ComponentSample sample{normal.values, 1.0f};
  train_tables(std::span(&sample, 1), quantiser);
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

}  // namespace

struct CodecBenchCase::Codec {
  ArtifactEncoder encoder;
  ArtifactDecoder decoder;
};

CodecBenchCase CodecBenchCase::of_artifact(const std::filesystem::path& directory, int64_t tokens) {
  Codec codec{.encoder = load_encoder(directory), .decoder = {}};
  if (codec.encoder.codec != CodecId::kRd) {
    throw Error(ErrorCode::kInvalidArgument, directory.string() + ": not an artifact of codec rd");
  }
  const auto consumers = list_decoders(directory);
  if (consumers.empty()) throw Error(ErrorCode::kNotFound, directory.string() + ": no decoder in it");
  codec.decoder = load_decoder(directory, consumers.front());
  return make(codec, tokens);
}

CodecBenchCase CodecBenchCase::synthetic(const SyntheticShape& shape, int64_t tokens) {
  Codec codec;
  codec.encoder.codec = codec.decoder.codec = CodecId::kRd;
  codec.encoder.model = codec.decoder.model = codec.decoder.producer_model = made_up_model(shape);
  RdEncoderMaps& encoder = codec.encoder.rd;
  RdDecoderMaps& decoder = codec.decoder.rd;
  encoder.plan = decoder.plan = layer_by_layer(shape.layers, 0);
  make_up_rates(shape, encoder.quantiser);
  decoder.quantiser = encoder.quantiser;
  std::mt19937 random(2);
  const int64_t width = 2 * codec.encoder.model.kv_width();
  for (const std::vector<float>& deviations : encoder.quantiser.deviations) {
    const auto components = static_cast<int64_t>(deviations.size());
    DenseMatrix map = normal_matrix(components, width, random);
    for (int64_t row = 0; row < components; ++row) {
      const float scale = deviations[static_cast<size_t>(row)] / std::sqrt(static_cast<float>(width));
      for (int64_t i = 0; i < width; ++i) map.at(row, i) *= scale;
    }
    encoder.units.push_back({std::move(map), std::vector<float>(deviations.size())});
    decoder.units.push_back(
        {normal_matrix(components, width, random), {}, std::vector<float>(static_cast<size_t>(width))});
  }
  return make(codec, tokens);
}

// What encoder and decoder are given of one unit.
struct CodecBenchCase::State {
  DenseMatrix keys, values, residual, anchor;
};

CodecBenchCase CodecBenchCase::make(const Codec& codec, int64_t tokens) {
  CodecBenchCase made(tokens);
  made.quantiser_ = codec.encoder.rd.quantiser;
  std::mt19937 random(3);
  const CodecModel& model = codec.encoder.model;
  const LayerPlan& plan = codec.encoder.rd.plan;
  auto states = std::make_shared<std::vector<State>>();  // of the two calls below
  for (size_t index = 0; index < plan.units.size(); ++index) {
    const CodedUnit& coded = plan.units[index];
    const DenseMatrix& encoder_map = codec.encoder.rd.units[index].map;
    const RdUnitDecoder& decoder_maps = codec.decoder.rd.units[index];
    CodecBenchUnit unit{.encoder_map = encoder_map,
                        .decoder = decoder_maps,
                        .source = normal_matrix(tokens, encoder_map.columns, random),
                        .anchor = normal_matrix(tokens, decoder_maps.anchor_dims(), random),
                        .codes = normal_matrix(encoder_map.rows, tokens, random)};
    for (int64_t row = 0; row < unit.codes.rows; ++row) {
      const float deviation = made.quantiser_.deviations[index][static_cast<size_t>(row)];
      for (int64_t i = 0; i < tokens; ++i) unit.codes.at(row, i) *= deviation;
    }
    if (kernels::native_precision() == kernels::DType::kBF16) {
      unit.rounded = std::make_shared<const RdRoundedUnit>(decoder_maps);
    }
    const int64_t width = model.kv_width() * coded.layers;
    states->push_back({normal_matrix(tokens, width, random), normal_matrix(tokens, width, random),
                       normal_matrix(tokens, model.hidden, random), normal_matrix(tokens, model.hidden, random)});
    made.raw_bytes_ += static_cast<double>(4 * tokens * width);
    made.units_.push_back(std::move(unit));
  }
  const std::shared_ptr<const Encoder> encoder = make_encoder(CodecId::kRd, codec.encoder.model, &codec.encoder);
  const std::shared_ptr<const Decoder> decoder =
      make_decoder(CodecId::kRd, codec.decoder.producer_model, codec.decoder.model, &codec.decoder,
                   {kernels::Device::kCpu, kernels::native_precision()});
  made.encode_ = [encoder, states, plan](size_t unit, int32_t level) {
    const State& state = (*states)[unit];
    ByteBuffer payload;
    encoder->encode({.layer = plan.units[unit].first_layer,
                     .first_position = 0,
                     .keys = state.keys.view(),
                     .values = state.values.view(),
                     .attention_input = {},
                     .residual = state.residual.view(),
                     .anchor = state.anchor.view()},
                    {.level = level}, payload);
    return payload;
  };
  made.decode_ = [decoder, states, plan, tokens, out = std::make_shared<DecodedLayer>()](
                     size_t unit, std::span<const std::byte> payload) {
    const PayloadPlace place{plan.units[unit].first_layer, 0, tokens, (*states)[unit].anchor.view()};
    std::move(decoder->decode(place, payload, *out)).value_or_throw();
  };
  return made;
}

}  // namespace scd
