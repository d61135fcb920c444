// `droidspeak`: the baseline after DroidSpeak (arXiv:2411.02820). A span of critical layers, found by profiling, is
// computed by the consumer from what enters it; keys and values of all other layers are handed over as they are. The
// plan is all there is to calibrate: units of one layer are payloads of `raw`, its native spans the residual stream
// before them in BF16.
#pragma once

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/plain_codec.h"

namespace scd {

class DroidSpeakEncoder final : public Encoder {
 public:
  // Throws Error kFailedPrecondition when the plan is not one of this codec or not of the model.
  DroidSpeakEncoder(const CodecModel& producer, LayerPlan plan, const Sha256Digest& id);

  const Sha256Digest& id() const override { return id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override;
  bool needs_residual(int32_t layer) const override;
  // Rank caps do not apply.
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;

 private:
  CodecModel producer_;
  LayerPlan plan_;
  PlainEncoder raw_;
  Sha256Digest id_;
};

class DroidSpeakDecoder final : public Decoder {
 public:
  // Throws Error kFailedPrecondition when the plan does not fit, or the models differ in shape.
  DroidSpeakDecoder(const CodecModel& producer, const CodecModel& consumer, LayerPlan plan,
                    const Sha256Digest& encoder_id);

  const Sha256Digest& encoder_id() const override { return encoder_id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override;
  std::optional<int32_t> calibrated_exact_layers() const override { return plan_.exact_layers; }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  size_t max_payload_bytes(int64_t tokens) const override;

 private:
  Result<Done> decode_residual(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const;

  CodecModel consumer_;
  LayerPlan plan_;
  PlainDecoder raw_;
  Sha256Digest encoder_id_;
};

}  // namespace scd
