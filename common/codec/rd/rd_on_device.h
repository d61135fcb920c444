// `rd` on a GPU: what crosses the bus are bytes, not codes, keys or values. The same mathematics as on the CPU
// (rd_codec.cpp, rd_state.cpp) with products on tensor cores. The encoder's are in TF32 (10 bits of mantissa), as a
// step is small beside the largest codes; the decoder's in BF16, to which the cache rounds what comes out. Codes and
// rebuilt values differ by that rounding, symbols and bytes of equal codes do not.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/payload.h"
#include "common/codec/rd/rd_maps.h"
#include "common/codec/rd/rd_quantiser.h"
#include "kernels/coded_streams.h"
#include "kernels/device.h"

namespace scd {

// Rows of `map` on a device.
class DeviceMap {
 public:
  DeviceMap() = default;
  DeviceMap(const DenseMatrix& map, kernels::DType dtype, kernels::Device device);
  // The first `rows` rows.
  kernels::ConstMatrix top(int64_t rows) const;

 private:
  kernels::DeviceBuffer memory_;
  kernels::DType dtype_ = kernels::DType::kF32;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
};

// The quantiser's tables on a GPU.
class RdTablesOnDevice {
 public:
  explicit RdTablesOnDevice(const RdQuantiser& quantiser);
  // What codes the first components of a unit at a level.
  kernels::StreamRows rows(size_t unit, int32_t level) const;

 private:
  kernels::StreamTables tables_;
  std::vector<float> steps_;                 // by level
  std::vector<std::vector<size_t>> places_;  // by unit and level: where its rows begin
  kernels::DeviceBuffer rows_;
};

// Chunks and anchors may be on the host or on the device; pages are on the device.
class RdEncoderOnDevice {
 public:
  RdEncoderOnDevice(const CodecModel& producer, const std::vector<RdUnitEncoder>& units, const RdQuantiser& quantiser);

  // The codes of a unit, as many as `out` has rows: out [components, tokens] F32 on the device.
  void codes(size_t index, const CodedUnit& unit, const LayerChunk& chunk, kernels::Matrix out) const;
  // The same without the unit's offsets, which are added where streams are made.
  void products(size_t index, const CodedUnit& unit, const LayerChunk& chunk, kernels::Matrix out) const;

  // Queues codes and coding of the chunks, entropy-coded. For the calling thread alone.
  struct Streams {
    kernels::StreamEncoder encoder;
    kernels::ConstMatrix products;  // until the encoder is used again
    size_t bytes() const { return encoder.bytes(); }
  };
  std::shared_ptr<Streams> begin(size_t index, const CodedUnit& unit, const LayerChunk& rows,
                                 std::span<const int64_t> chunk_tokens, int64_t components, int32_t level) const;

 private:
  struct Unit {
    DeviceMap map;
    kernels::DeviceVector offset;
  };
  void multiply(size_t index, const CodedUnit& unit, const LayerChunk& chunk, kernels::Matrix out, float beta) const;
  kernels::Matrix source(const CodedUnit& unit, const LayerChunk& chunk, const kernels::ConstMatrix& anchor) const;

  CodecModel producer_;
  std::vector<Unit> units_;
  RdTablesOnDevice tables_;
};

class RdDecoderOnDevice {
 public:
  // Tokens that are decoded together at most.
  static constexpr int64_t kMaxBlockTokens = kMaxPayloadTokens;

  RdDecoderOnDevice(const CodecModel& consumer, const std::vector<RdUnitDecoder>& units, const RdQuantiser& quantiser);

  // Codes of a unit on the device, BF16, a token's side by side, zeros behind them up to a multiple of 8.
  struct Block {
    std::shared_ptr<const kernels::DeviceBuffer> memory;  // may hold other blocks, too
    kernels::Matrix codes;                                // [tokens, components]
  };
  // Room for blocks of so many tokens and components, contents undefined; for the calling thread alone.
  struct Shape {
    int64_t tokens = 0;
    int64_t components = 0;
  };
  std::vector<Block> blocks(std::span<const Shape> shapes) const;
  // codes [components, tokens] F32 on the host -> the rows of a block from `first` on.
  static void put(kernels::ConstMatrix codes, const Block& block, int64_t first);

  // For streams of so many bytes together, and for the calling thread alone.
  std::shared_ptr<kernels::StreamDecoder> stream_decoder(size_t stream_bytes) const;

  // What codes the unit's streams.
  kernels::StreamRows rows(size_t index, int32_t level) const { return tables_.rows(index, level); }
  // Codes -> what they rebuild, left on the device; keys before RoPE.
  void decode(size_t index, const CodedUnit& unit, const PayloadPlace& place, const Block& block,
              DecodedLayer& out) const;

 private:
  struct Unit {
    DeviceMap maps;   // what anchor, or its directions, and codes are multiplied by
    DeviceMap basis;  // of few directions; empty: all of the anchor is looked at
    kernels::DeviceVector mean;
    int64_t directions = 0;
    bool few_directions = false;
  };
  kernels::ConstMatrix operand(const Unit& unit, const kernels::ConstMatrix& anchor, const PayloadPlace& place,
                               const Block& block) const;

  CodecModel consumer_;
  std::vector<Unit> units_;
  int64_t most_components_ = 0;  // of a unit
  RdTablesOnDevice tables_;
};

}  // namespace scd
