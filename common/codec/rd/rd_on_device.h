// The linear maps of `rd` on a GPU: what crosses the bus are codes, not keys and values. The same mathematics as on the
// CPU (rd_codec.cpp, rd_state.cpp) with products on tensor cores. The encoder's are in TF32 (10 bits of mantissa), as a
// step is small beside the largest codes; the decoder's in BF16, to which the cache rounds what comes out. Codes and
// rebuilt values differ by that rounding, symbols and bytes of equal codes do not.
#pragma once

#include <cstdint>
#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/rd/rd_maps.h"
#include "kernels/device.h"

namespace scd {

// A map or none, on a device.
class DeviceMap {
 public:
  DeviceMap() = default;
  DeviceMap(const DenseMatrix& map, kernels::DType dtype, kernels::Device device);
  // The first `rows` rows.
  kernels::ConstMatrix top(int64_t rows) const;
  kernels::ConstMatrix view() const { return top(rows_); }

 private:
  kernels::DeviceBuffer memory_;
  kernels::DType dtype_ = kernels::DType::kF32;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
};

// Chunks and anchors may be on the host or on the device. For one thread at a time.
class RdEncoderOnDevice {
 public:
  RdEncoderOnDevice(const CodecModel& producer, const std::vector<RdUnitEncoder>& units, kernels::Device device);

  // The first `components` codes of a unit, [components, tokens], on the host; valid until the thread's next call.
  kernels::ConstMatrix codes(size_t index, const CodedUnit& unit, bool anchored, const LayerChunk& chunk,
                             int64_t components) const;

 private:
  struct Unit {
    DeviceMap map;
    kernels::DeviceVector offset;
  };
  CodecModel producer_;
  std::vector<Unit> units_;
};

class RdDecoderOnDevice {
 public:
  RdDecoderOnDevice(const CodecModel& consumer, const std::vector<RdUnitDecoder>& units, kernels::Device device);

  // codes [components, tokens] on the host -> what they rebuild, left on the device.
  void decode(size_t index, const CodedUnit& unit, const PayloadPlace& place, kernels::ConstMatrix codes,
              DecodedLayer& out) const;

 private:
  struct Unit {
    DeviceMap map, anchor_map;
    kernels::DeviceVector mean;
  };
  CodecModel consumer_;
  std::vector<Unit> units_;
};

}  // namespace scd
