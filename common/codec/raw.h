// `raw`: keys (as the producer rotated them) and values in BF16. The fair baseline: where the two models rotate
// differently, the decoder undoes the producer's RoPE and applies the consumer's; where they do not, it is bit-exact.
#pragma once

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"

namespace scd {

// SHA-256 of the producer's KV shape and RoPE table: what names raw payloads on the wire and in cache keys.
Sha256Digest raw_encoder_id(const CodecModel& producer);

class RawEncoder final : public Encoder {
 public:
  explicit RawEncoder(const CodecModel& producer);

  const Sha256Digest& id() const override { return id_; }
  bool needs_attention_input(int32_t) const override { return false; }
  // Rank caps do not apply.
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;

 private:
  CodecModel producer_;
  Sha256Digest id_;
};

class RawDecoder final : public Decoder {
 public:
  // Throws Error kFailedPrecondition, naming what differs, when the KV shapes are not the same.
  RawDecoder(const CodecModel& producer, const CodecModel& consumer);

  const Sha256Digest& encoder_id() const override { return encoder_id_; }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  size_t max_payload_bytes(int64_t tokens) const override;

 private:
  CodecModel producer_;
  CodecModel consumer_;
  Sha256Digest encoder_id_;
  bool rotates_alike_;
};

}  // namespace scd
