// `scd`: Reuse and Patch as published (scd_maps.h). Codes travel as BF16, component by component, so that a lower rank
// is a prefix of each block: z_0 of all rows, z_1 of all rows, ...
#pragma once

#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/scd_maps.h"

namespace scd {

class ScdEncoder final : public Encoder {
 public:
  // id: SHA-256 of the artifact's encoder/. Throws Error kFailedPrecondition when the maps do not fit the model.
  ScdEncoder(const CodecModel& producer, std::vector<ScdLayerEncoder> layers, const Sha256Digest& id);

  const Sha256Digest& id() const override { return id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(producer_.layers, exact_layers); }
  bool needs_attention_input(int32_t layer) const override;
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;

 private:
  CodecModel producer_;
  std::vector<ScdLayerEncoder> layers_;
  Sha256Digest id_;
};

class ScdDecoder final : public Decoder {
 public:
  // Throws Error kFailedPrecondition when the maps do not fit the consumer.
  ScdDecoder(const CodecModel& consumer, std::vector<ScdLayerDecoder> layers, const Sha256Digest& encoder_id);

  const Sha256Digest& encoder_id() const override { return encoder_id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(consumer_.layers, exact_layers); }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  size_t max_payload_bytes(int64_t tokens) const override;

 private:
  // Component-major: [rank, samples]. Reuse: of keys and of values; Patch: of the hidden state, second empty.
  struct Codes {
    DenseMatrix first;
    DenseMatrix second;
  };
  Result<Codes> read_codes(const PayloadPlace& place, std::span<const std::byte> payload) const;

  CodecModel consumer_;
  std::vector<ScdLayerDecoder> layers_;
  Sha256Digest encoder_id_;
};

}  // namespace scd
