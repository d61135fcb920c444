#include "common/codec/rd/rd_codec.h"

#include <algorithm>
#include <utility>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "kernels/linear.h"

namespace scd {
namespace {

void require(bool fits, const std::string& what) {
  if (!fits) throw Error(ErrorCode::kFailedPrecondition, "codec rd: " + what);
}

// Maps, deviations and the extra vector of one layer belong together.
template <class Layer>
void require_layers(const std::vector<Layer>& layers, const RdQuantiser& quantiser, const CodecModel& model,
                    const char* side) {
  const auto& deviations = quantiser.settings().deviations;
  require(
      std::ssize(layers) == model.layers && deviations.size() == layers.size(),
      std::string(side) + " of " + std::to_string(layers.size()) + " layers, model of " + std::to_string(model.layers));
  for (size_t i = 0; i < layers.size(); ++i) {
    const DenseMatrix& map = layers[i].map;
    require(map.rows <= UINT16_MAX && map.rows == std::ssize(deviations[i]) && map.columns == 2 * model.kv_width(),
            std::string(side) + " of layer " + std::to_string(i) + " does not fit the model's shape");
  }
}

}  // namespace

DenseMatrix unrotated_keys_values(const CodecModel& model, int64_t first_position, kernels::ConstMatrix keys,
                                  kernels::ConstMatrix values) {
  const DenseMatrix unrotated = unrotated_copy(keys, model.head_dim, first_position, model.rope);
  DenseMatrix joined(keys.rows, keys.columns + values.columns);
  for (int64_t row = 0; row < keys.rows; ++row) {
    float* target = joined.view().row<float>(row);
    std::copy_n(unrotated.view().row<float>(row), keys.columns, target);
    std::copy_n(values.row<float>(row), values.columns, target + keys.columns);
  }
  return joined;
}

RdEncoder::RdEncoder(const CodecModel& producer, std::vector<RdLayerEncoder> layers, RdQuantiserSettings quantiser,
                     const Sha256Digest& id)
    : producer_(producer), layers_(std::move(layers)), quantiser_(std::move(quantiser)), id_(id) {
  require_layers(layers_, quantiser_, producer_, "encoder");
  for (const RdLayerEncoder& layer : layers_) {
    require(std::ssize(layer.offset) == layer.map.rows, "an encoder's offset does not fit its map");
  }
}

void RdEncoder::encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const {
  const RdLayerEncoder& layer = layers_.at(static_cast<size_t>(chunk.layer));
  const int64_t tokens = chunk.keys.rows;
  SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens && chunk.values.rows == tokens, "tokens of a chunk");
  SCD_CHECK(caps.level >= 0 && caps.level < levels(), "a level of the artifact");
  int64_t components = quantiser_.components(chunk.layer, caps.level);
  if (caps.key > 0 && caps.value > 0) components = std::min<int64_t>(components, int64_t{caps.key} + caps.value);
  append_payload_header({PayloadKind::kRd, static_cast<uint16_t>(tokens), static_cast<uint16_t>(components),
                         static_cast<uint16_t>(caps.level)},
                        out);
  const DenseMatrix source = unrotated_keys_values(producer_, chunk.first_position, chunk.keys, chunk.values);
  DenseMatrix codes(components, tokens);
  for (int64_t row = 0; row < components; ++row) {
    std::fill_n(codes.view().row<float>(row), tokens, layer.offset[static_cast<size_t>(row)]);
  }
  if (components > 0) {
    kernels::gemm_f32(
        {.a = layer.map.top(components), .b = source.view(), .c = codes.view(), .transpose_b = true, .beta = 1.0f});
  }
  quantiser_.encode(chunk.layer, caps.level, std::as_const(codes).view(), out);
}

RdDecoder::RdDecoder(const CodecModel& consumer, std::vector<RdLayerDecoder> layers, RdQuantiserSettings quantiser,
                     const Sha256Digest& encoder_id)
    : consumer_(consumer), layers_(std::move(layers)), quantiser_(std::move(quantiser)), encoder_id_(encoder_id) {
  require_layers(layers_, quantiser_, consumer_, "decoder");
  for (const RdLayerDecoder& layer : layers_) {
    require(std::ssize(layer.mean) == 2 * consumer_.kv_width(), "a decoder's mean does not fit its map");
  }
}

size_t RdDecoder::max_payload_bytes(int64_t tokens) const {
  int64_t most = 0;
  for (int32_t layer = 0; layer < consumer_.layers; ++layer) most = std::max(most, quantiser_.components(layer, 0));
  return kPayloadHeaderBytes + RdQuantiser::max_bytes(tokens * most);
}

Result<Done> RdDecoder::decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const {
  const auto read = read_payload_header(place, payload);
  if (!read) return read.failure();
  const PayloadHeader& header = read.value();
  if (header.kind != PayloadKind::kRd) return payload_failure(place, "not a payload of codec rd");
  if (place.layer < 0 || place.layer >= consumer_.layers) {
    return payload_failure(place, "the model has " + std::to_string(consumer_.layers) + " layers");
  }
  const int32_t level = header.second_rank;
  if (level >= quantiser_.levels() || header.first_rank > quantiser_.components(place.layer, level)) {
    return payload_failure(place, std::to_string(header.first_rank) + " components at level " + std::to_string(level) +
                                      " are not what was calibrated");
  }
  DenseMatrix codes(header.first_rank, place.tokens);
  const std::string problem = quantiser_.decode(place.layer, level, payload.subspan(kPayloadHeaderBytes), codes.view());
  if (!problem.empty()) return payload_failure(place, problem);

  const RdLayerDecoder& layer = layers_[static_cast<size_t>(place.layer)];
  const int64_t width = consumer_.kv_width();
  DenseMatrix joined(place.tokens, 2 * width);
  for (int64_t row = 0; row < place.tokens; ++row) {
    std::ranges::copy(layer.mean, joined.view().row<float>(row));
  }
  if (codes.rows > 0) {
    kernels::gemm_f32({.a = std::as_const(codes).view(),
                       .b = layer.map.top(codes.rows),
                       .c = joined.view(),
                       .transpose_a = true,
                       .beta = 1.0f});
  }
  out.is_attention_input = false;
  out.tokens = place.tokens;
  out.attention_input.clear();
  out.keys.resize(static_cast<size_t>(place.tokens * width));
  out.values.resize(out.keys.size());
  const kernels::ConstMatrix both = std::as_const(joined).view();
  for (int64_t row = 0; row < place.tokens; ++row) {
    std::copy_n(both.row<float>(row), width, out.keys.data() + row * width);
    std::copy_n(both.row<float>(row) + width, width, out.values.data() + row * width);
  }
  rotate_chunk(kernels::matrix(out.keys.data(), place.tokens, width), consumer_.head_dim, place.first_position,
               consumer_.rope, kernels::RopeDirection::kRotate);
  return Done{};
}

}  // namespace scd
