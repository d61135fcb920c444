#include "common/codec/lora_delta_codec.h"

#include <algorithm>
#include <utility>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "kernels/linear.h"

namespace scd {
namespace {

// Both sides' factors: none, or rank x columns.
template <class Layer>
void require_layers(const std::vector<Layer>& layers, const CodecModel& model, int64_t columns, const char* side) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kFailedPrecondition, "codec lora_delta: " + std::string(side) + " of " + what);
  };
  if (std::ssize(layers) != model.layers) {
    refuse(std::to_string(layers.size()) + " layers, model of " + std::to_string(model.layers));
  }
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (const DenseMatrix* factor : {&layers[layer].key, &layers[layer].value}) {
      if (factor->empty() || (factor->rows <= UINT16_MAX && factor->columns == columns)) continue;
      refuse("layer " + std::to_string(layer) + " is " + std::to_string(factor->rows) + " x " +
             std::to_string(factor->columns) + "; the model wants rank x " + std::to_string(columns));
    }
  }
}

PayloadHeader header_of(const DenseMatrix& key, const DenseMatrix& value, int64_t tokens) {
  const bool touched = !key.empty() || !value.empty();
  return {touched ? PayloadKind::kLoraDelta : PayloadKind::kRaw, static_cast<uint16_t>(tokens),
          static_cast<uint16_t>(key.rows), static_cast<uint16_t>(value.rows)};
}

// codes [tokens, rank] = input A^T
void append_codes(kernels::ConstMatrix input, const DenseMatrix& factor, ByteBuffer& out) {
  if (factor.empty()) return;
  DenseMatrix codes(input.rows, factor.rows);
  kernels::gemm_f32({.a = input, .b = factor.view(), .c = codes.view(), .transpose_b = true});
  append_bf16(codes.values, out);
}

// rows += codes factor
void add_delta(const DenseMatrix& codes, const DenseMatrix& factor, kernels::Matrix rows) {
  if (!factor.empty()) kernels::gemm_f32({.a = codes.view(), .b = factor.view(), .c = rows, .beta = 1.0f});
}

kernels::Matrix rows_of(std::vector<float>& values, int64_t tokens) {
  return kernels::matrix(values.data(), tokens, std::ssize(values) / tokens);
}

}  // namespace

LoraDeltaEncoder::LoraDeltaEncoder(const CodecModel& producer, std::vector<LoraDeltaEncoderLayer> layers,
                                   const Sha256Digest& id)
    : producer_(producer), layers_(std::move(layers)), raw_(producer.kv_width()), id_(id) {
  require_layers(layers_, producer_, producer_.hidden, "encoder");
}

bool LoraDeltaEncoder::needs_attention_input(int32_t layer) const {
  return layers_.at(static_cast<size_t>(layer)).touched();
}

void LoraDeltaEncoder::encode(const LayerChunk& chunk, const RankCaps&, ByteBuffer& out) const {
  const LoraDeltaEncoderLayer& factors = layers_.at(static_cast<size_t>(chunk.layer));
  const int64_t tokens = chunk.keys.rows;
  SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens && chunk.values.rows == tokens, "tokens of a chunk");
  SCD_CHECK(
      !factors.touched() || (chunk.attention_input.rows == tokens && chunk.attention_input.columns == producer_.hidden),
      "the attention input of an adapted layer");
  append_payload_header(header_of(factors.key, factors.value, tokens), out);
  raw_.encode(chunk.keys, chunk.values, out);
  append_codes(chunk.attention_input, factors.key, out);
  append_codes(chunk.attention_input, factors.value, out);
}

LoraDeltaDecoder::LoraDeltaDecoder(const CodecModel& producer, const CodecModel& consumer,
                                   std::vector<LoraDeltaDecoderLayer> layers, const Sha256Digest& encoder_id)
    : producer_(producer),
      consumer_(consumer),
      layers_(std::move(layers)),
      raw_(producer.kv_width()),
      encoder_id_(encoder_id) {
  require_layers(layers_, consumer_, consumer_.kv_width(), "decoder");
}

size_t LoraDeltaDecoder::max_payload_bytes(int64_t tokens) const {
  int64_t ranks = 0;
  for (const LoraDeltaDecoderLayer& layer : layers_) ranks = std::max(ranks, layer.key.rows + layer.value.rows);
  return kPayloadHeaderBytes + raw_.max_bytes(tokens) + static_cast<size_t>(tokens * ranks) * 2;
}

std::string LoraDeltaDecoder::read_body(std::span<const std::byte> body, DecodedLayer& out, DenseMatrix& key_codes,
                                        DenseMatrix& value_codes) const {
  const size_t state_bytes = raw_.max_bytes(out.tokens);
  const size_t key_bytes = key_codes.values.size() * 2;
  const size_t expected = state_bytes + key_bytes + value_codes.values.size() * 2;
  if (body.size() != expected) return wrong_length(body.size(), expected);
  const std::string problem =
      raw_.decode(body.first(state_bytes), rows_of(out.keys, out.tokens), rows_of(out.values, out.tokens));
  if (!problem.empty()) return problem;
  const bool keys_finite = read_bf16(body.subspan(state_bytes, key_bytes), key_codes.values);
  const bool values_finite = read_bf16(body.subspan(state_bytes + key_bytes), value_codes.values);
  return keys_finite && values_finite ? "" : "a value is not finite";
}

Result<Done> LoraDeltaDecoder::decode(const PayloadPlace& place, std::span<const std::byte> payload,
                                      DecodedLayer& out) const {
  const auto header = read_payload_header(place, payload);
  if (!header) return header.failure();
  if (place.layer < 0 || place.layer >= consumer_.layers) {
    return payload_failure(place, "the model has " + std::to_string(consumer_.layers) + " layers");
  }
  const LoraDeltaDecoderLayer& factors = layers_[static_cast<size_t>(place.layer)];
  if (const PayloadHeader wanted = header_of(factors.key, factors.value, place.tokens); header.value() != wanted) {
    return payload_failure(place, "not a payload of codec lora_delta with ranks " + std::to_string(wanted.first_rank) +
                                      " and " + std::to_string(wanted.second_rank));
  }
  out.kind = DecodedKind::kKeysValues;
  out.tokens = place.tokens;
  out.keys.resize(static_cast<size_t>(place.tokens * consumer_.kv_width()));
  out.values.resize(out.keys.size());
  out.hidden.clear();
  DenseMatrix key_codes(place.tokens, factors.key.rows), value_codes(place.tokens, factors.value.rows);
  const std::string problem = read_body(payload.subspan(kPayloadHeaderBytes), out, key_codes, value_codes);
  if (!problem.empty()) return payload_failure(place, problem);
  const kernels::Matrix keys = rows_of(out.keys, place.tokens);
  add_delta(value_codes, factors.value, rows_of(out.values, place.tokens));
  // The adapter adds to keys before RoPE. Where nothing is added and both rotate alike, they stay exact.
  if (factors.key.empty() && producer_.rope == consumer_.rope) return Done{};
  const auto turn = [&](const CodecModel& model, kernels::RopeDirection direction) {
    rotate_chunk(keys, model.head_dim, place.first_position, model.rope, direction);
  };
  turn(producer_, kernels::RopeDirection::kUnrotate);
  add_delta(key_codes, factors.key, keys);
  turn(consumer_, kernels::RopeDirection::kRotate);
  return Done{};
}

}  // namespace scd
