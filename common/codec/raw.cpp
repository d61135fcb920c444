#include "common/codec/raw.h"

#include "common/codec/key_rotation.h"
#include "common/codec/model_difference.h"
#include "common/codec/payload.h"

namespace scd {

Sha256Digest raw_encoder_id(const CodecModel& producer) {
  Sha256 hash;
  hash.update("scd raw 1");
  const int32_t shape[] = {producer.layers, producer.kv_heads, producer.head_dim};
  hash.update(std::as_bytes(std::span(shape)));
  hash.update(std::as_bytes(std::span(&producer.rope.attention_scale, 1)));
  hash.update(std::as_bytes(std::span(producer.rope.inverse_frequencies)));
  return hash.finish();
}

RawEncoder::RawEncoder(const CodecModel& producer) : producer_(producer), id_(raw_encoder_id(producer)) {}

void RawEncoder::encode(const LayerChunk& chunk, const RankCaps&, ByteBuffer& out) const {
  const int64_t tokens = chunk.keys.rows;
  SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens && chunk.values.rows == tokens, "tokens of a chunk");
  const auto width = static_cast<size_t>(producer_.kv_width());
  out.reserve(out.size() + kPayloadHeaderBytes + static_cast<size_t>(tokens) * width * 4);
  append_payload_header({PayloadKind::kRaw, static_cast<uint16_t>(tokens)}, out);
  for (const kernels::ConstMatrix* source : {&chunk.keys, &chunk.values}) {
    SCD_CHECK(source->columns == producer_.kv_width() && source->dtype == kernels::DType::kF32, "keys and values");
    for (int64_t row = 0; row < tokens; ++row) append_bf16({source->row<float>(row), width}, out);
  }
}

RawDecoder::RawDecoder(const CodecModel& producer, const CodecModel& consumer)
    : producer_(producer),
      consumer_(consumer),
      encoder_id_(raw_encoder_id(producer)),
      rotates_alike_(producer.rope == consumer.rope) {
  require_same_kv_shape(producer, consumer, "codec raw");
}

size_t RawDecoder::max_payload_bytes(int64_t tokens) const {
  return kPayloadHeaderBytes + static_cast<size_t>(tokens * producer_.kv_width()) * 4;
}

Result<Done> RawDecoder::decode(const PayloadPlace& place, std::span<const std::byte> payload,
                                DecodedLayer& out) const {
  const auto header = read_payload_header(place, payload);
  if (!header) return header.failure();
  if (header.value().kind != PayloadKind::kRaw || header.value().first_rank != 0 || header.value().second_rank != 0) {
    return payload_failure(place, "not a raw payload");
  }
  if (place.layer < 0 || place.layer >= producer_.layers) {
    return payload_failure(place, "the model has " + std::to_string(producer_.layers) + " layers");
  }
  const size_t expected = max_payload_bytes(place.tokens);
  if (payload.size() != expected) {
    return payload_failure(place, std::to_string(payload.size()) + " bytes, not " + std::to_string(expected));
  }
  const auto values = static_cast<size_t>(place.tokens * producer_.kv_width());
  out.is_attention_input = false;
  out.tokens = place.tokens;
  out.keys.resize(values);
  out.values.resize(values);
  out.attention_input.clear();
  const auto body = payload.subspan(kPayloadHeaderBytes);
  const bool keys_finite = read_bf16(body.first(values * 2), out.keys);
  const bool values_finite = read_bf16(body.subspan(values * 2), out.values);
  if (!keys_finite || !values_finite) return payload_failure(place, "a value is not finite");
  if (!rotates_alike_) {
    const auto keys = kernels::matrix(out.keys.data(), place.tokens, producer_.kv_width());
    rotate_chunk(keys, producer_.head_dim, place.first_position, producer_.rope, kernels::RopeDirection::kUnrotate);
    rotate_chunk(keys, consumer_.head_dim, place.first_position, consumer_.rope, kernels::RopeDirection::kRotate);
  }
  return Done{};
}

}  // namespace scd
