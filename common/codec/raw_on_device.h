// `raw` on a GPU: keys and values cross the bus in BF16, as they stand in a payload, in copies of many at once beside
// what their threads queue meanwhile. The bytes are those of the CPU.
#pragma once

#include "common/codec/plain_codec.h"

namespace scd {

class RawEncoderOnDevice final : public PlainEncoder {
 public:
  explicit RawEncoderOnDevice(const CodecModel& producer);

  kernels::Device device() const override { return kernels::Device::kGpu; }
  bool reads_pages() const override { return true; }
  // Keys and values that are not in pages are coded by the CPU.
  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override;
  std::unique_ptr<PendingPayloads> begin(const LayerChunk& rows, std::span<const int64_t> chunk_tokens,
                                         const RankCaps& caps) const override;
};

// Between models that rotate keys alike.
class RawDecoderOnDevice final : public PlainDecoder {
 public:
  // Throws as PlainDecoder.
  RawDecoderOnDevice(const CodecModel& producer, const CodecModel& consumer);

  kernels::Device device() const override { return kernels::Device::kGpu; }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override;
  bool reads_ahead() const override { return true; }
  Result<std::unique_ptr<PendingBlocks>> begin_reading(std::span<const Payload> payloads) const override;
  void decode_block(const PayloadPlace& place, const CodeBlock& block, DecodedLayer& out) const override;
};

}  // namespace scd
