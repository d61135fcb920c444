#include "common/codec/rd/rd_on_device.h"

#include <algorithm>

#include "common/codec/key_rotation.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"

namespace scd {
namespace {

constexpr auto kF32 = kernels::DType::kF32;
constexpr auto kBF16 = kernels::DType::kBF16;
constexpr auto kDevice = kernels::Device::kCuda;

kernels::Matrix columns_of(const kernels::Matrix& m, int64_t first, int64_t count) {
  return {m.row<float>(0) + first, m.rows, count, m.row_stride, m.dtype, m.device};
}

kernels::ConstMatrix on_device(const kernels::ConstMatrix& m, kernels::GrowBuffer& memory) {
  if (m.device == kDevice) return m;
  const kernels::Matrix there = memory.matrix(m.rows, m.columns, kF32, kDevice);
  kernels::copy(m, there);
  return there;
}

}  // namespace

DeviceMap::DeviceMap(const DenseMatrix& map, kernels::DType dtype, kernels::Device device)
    : memory_(device, map.values.size() * kernels::size_of(dtype)),
      dtype_(dtype),
      rows_(map.rows),
      columns_(map.columns) {
  if (map.empty()) return;
  const kernels::Matrix kept{memory_.data(), rows_, columns_, columns_, dtype, device};
  if (dtype == kF32) {
    kernels::copy(map.view(), kept);
    return;
  }
  kernels::GrowBuffer rounded_memory;
  const kernels::Matrix rounded = rounded_memory.matrix(rows_, columns_, dtype);
  kernels::convert(map.view(), rounded);
  kernels::copy(rounded, kept);
}

kernels::ConstMatrix DeviceMap::top(int64_t rows) const {
  return {memory_.data(), rows, columns_, columns_, dtype_, memory_.device()};
}

RdEncoderOnDevice::RdEncoderOnDevice(const CodecModel& producer, const std::vector<RdUnitEncoder>& units,
                                     kernels::Device device)
    : producer_(producer) {
  for (const RdUnitEncoder& unit : units) units_.push_back({DeviceMap(unit.map, kF32, device), {unit.offset, device}});
}

kernels::ConstMatrix RdEncoderOnDevice::codes(size_t index, const CodedUnit& unit, bool anchored,
                                              const LayerChunk& chunk, int64_t components) const {
  thread_local kernels::GrowBuffer source_memory, codes_memory, residual_memory, anchor_memory;
  thread_local kernels::HostStaging staging;
  const Unit& maps = units_[index];
  const int64_t tokens = unit.residual ? chunk.residual.rows : chunk.keys.rows;
  const kernels::Matrix result = staging.matrix(components, tokens);
  if (components == 0) return result;
  const kernels::Matrix source = source_memory.matrix(tokens, maps.map.view().columns, kF32, kDevice);
  kernels::ConstMatrix anchor;
  if (anchored) anchor = on_device(chunk.anchor, anchor_memory);
  const int64_t width = source.columns - anchor.columns;
  if (unit.residual) {
    kernels::divide_by_rms(on_device(chunk.residual, residual_memory), anchor, columns_of(source, 0, width));
  } else {
    const kernels::Matrix keys = columns_of(source, 0, width / 2);
    kernels::copy(chunk.keys, keys);
    rotate_chunk(keys, producer_.head_dim, chunk.first_position, producer_.rope, kernels::RopeDirection::kUnrotate);
    kernels::copy(chunk.values, columns_of(source, width / 2, width / 2));
  }
  if (anchored) kernels::divide_by_rms(anchor, anchor, columns_of(source, width, anchor.columns));
  const kernels::Matrix codes = codes_memory.matrix(components, tokens, kF32, kDevice);
  const std::span<const float> offset = maps.offset;
  kernels::fill_rows(codes, offset.first(static_cast<size_t>(components)));
  kernels::gemm_f32({.a = maps.map.top(components), .b = source, .c = codes, .transpose_b = true, .beta = 1.0f});
  kernels::copy(codes, result);
  return result;
}

RdDecoderOnDevice::RdDecoderOnDevice(const CodecModel& consumer, const std::vector<RdUnitDecoder>& units,
                                     kernels::Device device)
    : consumer_(consumer) {
  for (const RdUnitDecoder& unit : units) {
    units_.push_back(
        {DeviceMap(unit.map, kBF16, device), DeviceMap(unit.anchor_map, kBF16, device), {unit.mean, device}});
  }
}

void RdDecoderOnDevice::decode(size_t index, const CodedUnit& unit, const PayloadPlace& place,
                               kernels::ConstMatrix codes, DecodedLayer& out) const {
  thread_local kernels::GrowBuffer codes_memory, anchor_memory, scaled_memory, rounded_memory;
  const auto rounded = [&](const kernels::ConstMatrix& m) {
    const kernels::Matrix narrow = rounded_memory.matrix(m.rows, m.columns, kBF16, kDevice);
    kernels::convert(m, narrow);
    return narrow;
  };
  const Unit& maps = units_[index];
  const auto width = static_cast<int64_t>(maps.mean.size());
  const kernels::Matrix state = out.on_device.memory.matrix(place.tokens, width, kF32, kDevice);
  const kernels::ConstMatrix anchor_map = maps.anchor_map.view();
  kernels::ConstMatrix anchor;
  float beta = 0.0f;
  if (anchor_map.rows > 0) {
    anchor = on_device(place.anchor, anchor_memory);
    const kernels::Matrix scaled = scaled_memory.matrix(anchor.rows, anchor.columns, kF32, kDevice);
    kernels::divide_by_rms(anchor, anchor, scaled);
    kernels::gemm_f32({.a = rounded(scaled), .b = anchor_map, .c = state});
    beta = 1.0f;
  }
  if (codes.rows > 0) {
    kernels::gemm_f32({.a = rounded(on_device(codes, codes_memory)),
                       .b = maps.map.top(codes.rows),
                       .c = state,
                       .transpose_a = true,
                       .beta = beta});
    beta = 1.0f;
  }
  if (beta == 0.0f) kernels::copy(DenseMatrix(place.tokens, width).view(), state);
  kernels::add_bias(state, maps.mean);
  out.tokens = place.tokens;
  out.keys.clear();
  out.values.clear();
  out.hidden.clear();
  out.on_device.present = true;
  if (unit.residual) {
    out.kind = DecodedKind::kResidual;
    kernels::multiply_by_rms(state, anchor, state);
    out.on_device.hidden = state;
    return;
  }
  out.kind = DecodedKind::kKeysValues;
  const kernels::Matrix keys = columns_of(state, 0, width / 2);
  rotate_chunk(keys, consumer_.head_dim, place.first_position, consumer_.rope, kernels::RopeDirection::kRotate);
  out.on_device.keys = keys;
  out.on_device.values = columns_of(state, width / 2, width / 2);
}

}  // namespace scd
