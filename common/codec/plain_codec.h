// Codecs that need no calibration: a payload is its header and a body that tells keys and values of the layer alone.
// Where the two models rotate keys differently the decoder undoes the producer's RoPE and applies the consumer's, so
// that every one of these baselines is a fair one. One codec = one PlainBody; the rest is shared.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/payload.h"

namespace scd {

// How keys and values become bytes. Matrices are [tokens, kv_width] F32.
class PlainBody {
 public:
  virtual ~PlainBody() = default;
  virtual std::string_view name() const = 0;
  virtual PayloadKind kind() const = 0;
  // Keys are coded as they are before RoPE, where channels differ most; else as the producer's cache holds them.
  virtual bool codes_unrotated_keys() const = 0;
  virtual size_t max_bytes(int64_t tokens) const = 0;
  virtual void encode(kernels::ConstMatrix keys, kernels::ConstMatrix values, ByteBuffer& out) const = 0;
  // Untrusted bytes. Returns what is wrong with them, or nothing.
  [[nodiscard]] virtual std::string decode(std::span<const std::byte> body, kernels::Matrix keys,
                                           kernels::Matrix values) const = 0;
};

// SHA-256 of the body's name and the producer's KV shape and RoPE table: names its payloads on the wire and in caches.
Sha256Digest plain_encoder_id(std::string_view name, const CodecModel& producer);

class PlainEncoder : public Encoder {
 public:
  PlainEncoder(std::unique_ptr<const PlainBody> body, const CodecModel& producer);

  const Sha256Digest& id() const override { return id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(producer_.layers, exact_layers); }
  // Rank caps do not apply.
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;

 protected:
  int64_t kv_width() const { return producer_.kv_width(); }

 private:
  std::unique_ptr<const PlainBody> body_;
  CodecModel producer_;
  Sha256Digest id_;
};

class PlainDecoder : public Decoder {
 public:
  // Throws Error kFailedPrecondition, naming what differs, when the KV shapes are not the same.
  PlainDecoder(std::unique_ptr<const PlainBody> body, const CodecModel& producer, const CodecModel& consumer);

  const Sha256Digest& encoder_id() const override { return encoder_id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(consumer_.layers, exact_layers); }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  size_t max_payload_bytes(int64_t tokens) const override;

 protected:
  int64_t kv_width() const { return producer_.kv_width(); }
  // What stands behind the header, once that is checked.
  Result<std::span<const std::byte>> body_of(const PayloadPlace& place, std::span<const std::byte> payload) const;

 private:
  std::unique_ptr<const PlainBody> body_;
  CodecModel producer_;
  CodecModel consumer_;
  Sha256Digest encoder_id_;
};

}  // namespace scd
