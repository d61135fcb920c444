#include "common/codec/plain_codec.h"

#include <utility>

#include "common/codec/key_rotation.h"
#include "common/codec/model_difference.h"

namespace scd {

Sha256Digest plain_encoder_id(std::string_view name, const CodecModel& producer) {
  Sha256 hash;
  hash.update("scd " + std::string(name) + " 1");
  const int32_t shape[] = {producer.layers, producer.kv_heads, producer.head_dim};
  hash.update(std::as_bytes(std::span(shape)));
  hash.update(std::as_bytes(std::span(&producer.rope.attention_scale, 1)));
  hash.update(std::as_bytes(std::span(producer.rope.inverse_frequencies)));
  return hash.finish();
}

PlainEncoder::PlainEncoder(std::unique_ptr<const PlainBody> body, const CodecModel& producer)
    : body_(std::move(body)), producer_(producer), id_(plain_encoder_id(body_->name(), producer)) {}

void PlainEncoder::encode(const LayerChunk& chunk, const RankCaps&, ByteBuffer& out) const {
  const int64_t tokens = chunk.keys.rows;
  SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens && chunk.values.rows == tokens, "tokens of a chunk");
  for (const kernels::ConstMatrix* source : {&chunk.keys, &chunk.values}) {
    SCD_CHECK(source->columns == producer_.kv_width() && source->dtype == kernels::DType::kF32, "keys and values");
  }
  append_payload_header({body_->kind(), static_cast<uint16_t>(tokens)}, out);
  if (!body_->codes_unrotated_keys()) return body_->encode(chunk.keys, chunk.values, out);
  const DenseMatrix keys = unrotated_copy(chunk.keys, producer_.head_dim, chunk.first_position, producer_.rope);
  body_->encode(keys.view(), chunk.values, out);
}

PlainDecoder::PlainDecoder(std::unique_ptr<const PlainBody> body, const CodecModel& producer,
                           const CodecModel& consumer)
    : body_(std::move(body)),
      producer_(producer),
      consumer_(consumer),
      encoder_id_(plain_encoder_id(body_->name(), producer)) {
  require_same_kv_shape(producer, consumer, "codec " + std::string(body_->name()));
}

size_t PlainDecoder::max_payload_bytes(int64_t tokens) const { return kPayloadHeaderBytes + body_->max_bytes(tokens); }

Result<std::span<const std::byte>> PlainDecoder::body_of(const PayloadPlace& place,
                                                         std::span<const std::byte> payload) const {
  const auto header = read_payload_header(place, payload);
  if (!header) return header.failure();
  if (header.value().kind != body_->kind() || header.value().first_rank != 0 || header.value().second_rank != 0) {
    return payload_failure(place, "not a payload of codec " + std::string(body_->name()));
  }
  if (place.layer < 0 || place.layer >= producer_.layers) {
    return payload_failure(place, "the model has " + std::to_string(producer_.layers) + " layers");
  }
  return payload.subspan(kPayloadHeaderBytes);
}

Result<Done> PlainDecoder::decode(const PayloadPlace& place, std::span<const std::byte> payload,
                                  DecodedLayer& out) const {
  const auto body = body_of(place, payload);
  if (!body) return body.failure();
  const int64_t width = producer_.kv_width();
  out.kind = DecodedKind::kKeysValues;
  out.tokens = place.tokens;
  out.keys.resize(static_cast<size_t>(place.tokens * width));
  out.values.resize(out.keys.size());
  out.hidden.clear();
  out.on_device.present = false;
  const kernels::Matrix keys = kernels::matrix(out.keys.data(), place.tokens, width);
  const kernels::Matrix values = kernels::matrix(out.values.data(), place.tokens, width);
  if (const std::string problem = body_->decode(body.value(), keys, values); !problem.empty()) {
    return payload_failure(place, problem);
  }
  const bool unrotated = body_->codes_unrotated_keys();
  if (!unrotated && producer_.rope == consumer_.rope) return Done{};
  if (!unrotated) {
    rotate_chunk(keys, producer_.head_dim, place.first_position, producer_.rope, kernels::RopeDirection::kUnrotate);
  }
  rotate_chunk(keys, consumer_.head_dim, place.first_position, consumer_.rope, kernels::RopeDirection::kRotate);
  return Done{};
}

}  // namespace scd
