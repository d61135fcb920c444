// `lora_delta`: the baseline for a consumer that is the producer plus a LoRA adapter. The producer's keys and values as
// `raw` sends them and, of layers whose key or value weights the adapter changes, the adapter's own low-rank term of
// the producer's attention input (lora_delta_maps.h). Exact but for BF16 as long as both models' inputs of the layer
// are the same; what drifts above the first adapted layer is not in it.
#pragma once

#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/lora_delta_maps.h"
#include "common/codec/raw_body.h"

namespace scd {

class LoraDeltaEncoder final : public Encoder {
 public:
  // Throws Error kFailedPrecondition when the adapter's factors do not fit the model.
  LoraDeltaEncoder(const CodecModel& producer, std::vector<LoraDeltaEncoderLayer> layers, const Sha256Digest& id);

  const Sha256Digest& id() const override { return id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(producer_.layers, exact_layers); }
  bool needs_attention_input(int32_t layer) const override;
  // Rank caps do not apply: an adapter's components are in no order.
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;

 private:
  CodecModel producer_;
  std::vector<LoraDeltaEncoderLayer> layers_;
  RawBody raw_;
  Sha256Digest id_;
};

class LoraDeltaDecoder final : public Decoder {
 public:
  // Throws Error kFailedPrecondition when the adapter's factors do not fit the consumer.
  LoraDeltaDecoder(const CodecModel& producer, const CodecModel& consumer, std::vector<LoraDeltaDecoderLayer> layers,
                   const Sha256Digest& encoder_id);

  const Sha256Digest& encoder_id() const override { return encoder_id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(consumer_.layers, exact_layers); }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  size_t max_payload_bytes(int64_t tokens) const override;

 private:
  // Keys, values, then the codes of both, [tokens, rank]; what is wrong with the bytes, or nothing.
  std::string read_body(std::span<const std::byte> body, DecodedLayer& out, DenseMatrix& key_codes,
                        DenseMatrix& value_codes) const;

  CodecModel producer_;
  CodecModel consumer_;
  std::vector<LoraDeltaDecoderLayer> layers_;
  RawBody raw_;
  Sha256Digest encoder_id_;
};

}  // namespace scd
