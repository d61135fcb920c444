// `rd`: rate-distortion codes (rd_maps.h). A payload is its header (first rank: components, second rank: level), then
// the symbols of component after component, entropy-coded: fewer components are what a coarser level or a cap leaves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/rd/rd_blocks.h"
#include "common/codec/rd/rd_maps.h"
#include "common/codec/rd/rd_on_device.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/rd/rd_state.h"

namespace scd {

// plan_problem(), and that residual streams have an anchor: they are coded by the scale of its rows.
std::string rd_plan_problem(const LayerPlan& plan, int32_t layers);

class RdEncoder final : public Encoder {
 public:
  // Throws Error kFailedPrecondition when maps, plan, quantiser and model do not fit each other.
  // On a GPU the linear maps run there, and the coder but for the packed form (rd_on_device.h).
  RdEncoder(const CodecModel& producer, RdEncoderMaps maps, const Sha256Digest& id,
            kernels::Device device = kernels::Device::kCpu);

  const Sha256Digest& id() const override { return id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override;
  UnitSource source(const LayerPlan& plan, size_t unit) const override;
  bool needs_residual(int32_t layer) const override;
  kernels::Device device() const override;
  bool reads_pages() const override { return on_device_ != nullptr; }
  int32_t levels() const override { return quantiser_.levels(); }
  // Codes at caps.level, in the form of caps.packed. caps.key + caps.value, where both are set, is the most components
  // of a layer; caps.hidden of a residual stream.
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;
  std::unique_ptr<PendingPayloads> begin(const LayerChunk& rows, std::span<const int64_t> chunk_tokens,
                                         const RankCaps& caps) const override;
  // What encode() quantises: the first `components` codes of the unit, [components, tokens]. Computed on the CPU.
  DenseMatrix codes(const LayerChunk& chunk, int64_t components) const;

 private:
  class OnDevicePayloads;
  int64_t components(size_t index, const RankCaps& caps) const;
  void append_payload(size_t index, const RankCaps& caps, kernels::ConstMatrix codes, ByteBuffer& out) const;

  CodecModel producer_;
  LayerPlan plan_;
  std::vector<UnitSource> sources_;  // by unit
  std::vector<RdUnitEncoder> units_;
  RdQuantiser quantiser_;
  Sha256Digest id_;
  std::unique_ptr<const RdEncoderOnDevice> on_device_;  // null on the CPU
};

class RdDecoder final : public Decoder {
 public:
  // Reads payloads of every level. Throws Error kFailedPrecondition when maps, plan, quantiser and model do not fit.
  // On a GPU the linear maps run there, unless a unit has a network. precision: of the products on the CPU.
  RdDecoder(const CodecModel& consumer, RdDecoderMaps maps, const Sha256Digest& encoder_id,
            kernels::Device device = kernels::Device::kCpu, kernels::DType precision = kernels::DType::kF32);

  const Sha256Digest& encoder_id() const override { return encoder_id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override;
  std::optional<int32_t> calibrated_exact_layers() const override { return plan_.exact_layers; }
  kernels::Device device() const override;
  bool needs_anchor(int32_t layer) const override;
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  bool reads_ahead() const override { return on_device_ != nullptr; }
  Result<std::unique_ptr<PendingBlocks>> begin_reading(std::span<const Payload> payloads) const override;
  void decode_block(const PayloadPlace& place, const CodeBlock& block, DecodedLayer& out) const override;
  size_t max_payload_bytes(int64_t tokens) const override;
  // What decode() makes of the codes it has read, [components, tokens]; no more components than were calibrated.
  void decode_codes(const PayloadPlace& place, kernels::ConstMatrix codes, DecodedLayer& out) const;

 private:
  // Where the payload's header is as calibrated.
  Result<RdBody> read(const PayloadPlace& place, std::span<const std::byte> payload) const;
  void require_anchor(const PayloadPlace& place, size_t unit) const;
  // [tokens, dims of y], valid until the thread's next call.
  kernels::ConstMatrix reconstruct_rounded(size_t index, const PayloadPlace& place, kernels::ConstMatrix codes) const;
  void split(const CodedUnit& unit, kernels::ConstMatrix state, const PayloadPlace& place, DecodedLayer& out) const;

  CodecModel consumer_;
  LayerPlan plan_;
  std::vector<RdUnitDecoder> units_;  // without their linear maps where on_device_ or rounded_ have them
  RdQuantiser quantiser_;
  Sha256Digest encoder_id_;
  std::unique_ptr<const RdDecoderOnDevice> on_device_;  // null on the CPU
  std::vector<RdRoundedUnit> rounded_;                  // by unit, where the CPU multiplies in BF16; else none
};

}  // namespace scd
