// `rd`: rate-distortion codes (rd_maps.h). A payload is its header (first rank: components, second rank: level), then
// the symbols of component after component, entropy-coded: fewer components are what a coarser level or a cap leaves.
#pragma once

#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/rd/rd_maps.h"
#include "common/codec/rd/rd_quantiser.h"

namespace scd {

class RdEncoder final : public Encoder {
 public:
  // Throws Error kFailedPrecondition when maps, quantiser and model do not fit each other.
  RdEncoder(const CodecModel& producer, std::vector<RdLayerEncoder> layers, RdQuantiserSettings quantiser,
            const Sha256Digest& id);

  const Sha256Digest& id() const override { return id_; }
  bool needs_attention_input(int32_t) const override { return false; }
  int32_t levels() const override { return quantiser_.levels(); }
  // Codes at caps.level; caps.key + caps.value, where both are set, is the most components of a layer.
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;

 private:
  CodecModel producer_;
  std::vector<RdLayerEncoder> layers_;
  RdQuantiser quantiser_;
  Sha256Digest id_;
};

class RdDecoder final : public Decoder {
 public:
  // Reads payloads of every level. Throws Error kFailedPrecondition when maps, quantiser and model do not fit.
  RdDecoder(const CodecModel& consumer, std::vector<RdLayerDecoder> layers, RdQuantiserSettings quantiser,
            const Sha256Digest& encoder_id);

  const Sha256Digest& encoder_id() const override { return encoder_id_; }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  size_t max_payload_bytes(int64_t tokens) const override;

 private:
  CodecModel consumer_;
  std::vector<RdLayerDecoder> layers_;
  RdQuantiser quantiser_;
  Sha256Digest encoder_id_;
};

// [K~ V] of a chunk side by side, [tokens, 2 kv_width] F32: keys without the RoPE that `model` gave them.
DenseMatrix unrotated_keys_values(const CodecModel& model, int64_t first_position, kernels::ConstMatrix keys,
                                  kernels::ConstMatrix values);

}  // namespace scd
