#include "common/codec/rd/rd_on_device.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/codec/block_memory.h"
#include "common/codec/key_rotation.h"
#include "common/codec/reused.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/unrotated_kv.h"

namespace scd {
namespace {

constexpr auto kF32 = kernels::DType::kF32;
constexpr auto kBF16 = kernels::DType::kBF16;
constexpr auto kDevice = kernels::Device::kGpu;
constexpr int64_t kAlignedColumns = 8;  // 16 bytes, as products want rows to begin

int64_t aligned(int64_t columns) { return (columns + kAlignedColumns - 1) / kAlignedColumns * kAlignedColumns; }

// Of a block's rows: a product's inner dimension is not 0.
int64_t padded(int64_t components) { return aligned(std::max<int64_t>(components, 1)); }

kernels::ConstMatrix on_device(const kernels::ConstMatrix& m, kernels::GrowBuffer& memory) {
  if (m.device == kDevice) return m;
  const kernels::Matrix there = memory.matrix(m.rows, m.columns, kF32, kDevice);
  kernels::copy(m, there);
  return there;
}

kernels::StreamTables tables_of(const RdQuantiser& quantiser) {
  std::vector<uint32_t> ranges, slots;
  for (size_t index = 0; index < kRdTables; ++index) {
    const RansTable& table = quantiser.rans_table(index);
    ranges.insert(ranges.end(), table.ranges(), table.ranges() + kRansSymbols);
    slots.insert(slots.end(), table.slots(), table.slots() + kRansTotal);
  }
  return {ranges, slots};
}

// [anchor map; zeros; map; zeros]
DenseMatrix stacked(const RdUnitDecoder& unit) {
  DenseMatrix all(aligned(unit.anchor_map.rows) + padded(unit.map.rows), std::ssize(unit.mean));
  std::ranges::copy(unit.anchor_map.values, all.values.begin());
  std::ranges::copy(unit.map.values, all.values.begin() + aligned(unit.anchor_map.rows) * all.columns);
  return all;
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
  SCD_CHECK(rows <= rows_, "rows of a map");
  return {memory_.data(), rows, columns_, columns_, dtype_, memory_.device()};
}

RdTablesOnDevice::RdTablesOnDevice(const RdQuantiser& quantiser)
    : tables_(tables_of(quantiser)), steps_(quantiser.settings().steps) {
  std::vector<kernels::StreamRow> rows;
  for (size_t unit = 0; unit < quantiser.settings().deviations.size(); ++unit) {
    std::vector<size_t>& places = places_.emplace_back();
    const auto number = static_cast<int32_t>(unit);
    for (int32_t level = 0; level < quantiser.levels(); ++level) {
      places.push_back(rows.size());
      for (int64_t row = 0; row < quantiser.components(number, level); ++row) {
        const size_t table = quantiser.table_of(number, level, row);
        rows.push_back({static_cast<int32_t>(table), quantiser.shift(table)});
      }
    }
  }
  rows_ = kernels::buffer_of(std::as_bytes(std::span(rows)), kDevice);
}

kernels::StreamRows RdTablesOnDevice::rows(size_t unit, int32_t level) const {
  const auto number = static_cast<size_t>(level);
  const auto* all = reinterpret_cast<const kernels::StreamRow*>(rows_.data());
  return {&tables_, all + places_.at(unit).at(number), steps_[number]};
}

RdEncoderOnDevice::RdEncoderOnDevice(const CodecModel& producer, const std::vector<RdUnitEncoder>& units,
                                     const RdQuantiser& quantiser)
    : producer_(producer), tables_(quantiser) {
  for (const RdUnitEncoder& unit : units) {
    units_.push_back({DeviceMap(unit.map, kF32, kDevice), {unit.offset, kDevice}});
  }
}

void RdEncoderOnDevice::codes(size_t index, const CodedUnit& unit, const LayerChunk& chunk, kernels::Matrix out) const {
  const std::span<const float> offset = units_[index].offset;
  kernels::fill_rows(out, offset.first(static_cast<size_t>(out.rows)));
  multiply(index, unit, chunk, out, 1.0f);
}

void RdEncoderOnDevice::products(size_t index, const CodedUnit& unit, const LayerChunk& chunk,
                                 kernels::Matrix out) const {
  multiply(index, unit, chunk, out, 0.0f);
}

// x but for its anchor, in one matrix: [keys before RoPE, values], or the residual stream over its anchor.
kernels::Matrix RdEncoderOnDevice::source(const CodedUnit& unit, const LayerChunk& chunk,
                                          const kernels::ConstMatrix& anchor) const {
  thread_local kernels::GrowBuffer memory, residual_memory;
  if (unit.residual) {
    const kernels::ConstMatrix residual = on_device(chunk.residual, residual_memory);
    const kernels::Matrix x = memory.matrix(residual.rows, residual.columns, kF32, kDevice);
    kernels::divide_by_rms(residual, anchor, x);
    return x;
  }
  const bool paged = !chunk.pages.layers.empty();
  const int64_t width = paged ? std::ssize(chunk.pages.layers) * producer_.kv_width() : chunk.keys.columns;
  const kernels::Matrix x = memory.matrix(chunk.key_value_tokens(), 2 * width, kF32, kDevice);
  const kernels::Matrix keys = columns_of(x, 0, width), values = columns_of(x, width, width);
  if (paged) {
    kernels::read_unrotated_kv(chunk.pages.layers, {chunk.pages.page_ids, 0, x.rows, chunk.first_position},
                               producer_.rope, keys, values);
    return x;
  }
  kernels::copy(chunk.keys, keys);
  kernels::copy(chunk.values, values);
  rotate_chunk(keys, producer_.head_dim, chunk.first_position, producer_.rope, kernels::RopeDirection::kUnrotate);
  return x;
}

void RdEncoderOnDevice::multiply(size_t index, const CodedUnit& unit, const LayerChunk& chunk, kernels::Matrix out,
                                 float beta) const {
  thread_local kernels::GrowBuffer anchor_memory;
  thread_local KeptAnchor own;
  if (out.rows == 0) return;
  const kernels::ConstMatrix map = units_[index].map.top(out.rows);
  kernels::ConstMatrix anchor;
  if (chunk.anchor.data != nullptr) anchor = on_device(chunk.anchor, anchor_memory);
  const kernels::Matrix x = source(unit, chunk, anchor);
  kernels::gemm_f32({.a = columns_of(map, 0, x.columns), .b = x, .c = out, .transpose_b = true, .beta = beta});
  if (x.columns == map.columns) return;
  KeptAnchor* const kept = chunk.kept_anchor != nullptr ? chunk.kept_anchor : &own;
  if (kept == &own) own.restart(chunk.first_position, anchor.rows);
  kernels::gemm_f32({.a = columns_of(map, x.columns, anchor.columns),
                     .b = kept->rows(anchor, chunk.first_position, kF32),
                     .c = out,
                     .transpose_b = true,
                     .beta = 1.0f});
}

std::shared_ptr<RdEncoderOnDevice::Streams> RdEncoderOnDevice::begin(size_t index, const CodedUnit& unit,
                                                                     const LayerChunk& rows,
                                                                     std::span<const int64_t> chunk_tokens,
                                                                     int64_t components, int32_t level) const {
  const int64_t tokens = unit.residual ? rows.residual.rows : rows.key_value_tokens();
  const auto streams = reused<Streams>(static_cast<size_t>(components * tokens) * sizeof(float));
  const kernels::Matrix numbers = streams->encoder.numbers(components, tokens);
  products(index, unit, rows, numbers);
  streams->products = numbers;
  kernels::StreamRows coded = tables_.rows(index, level);
  coded.offsets = std::span<const float>(units_[index].offset).data();
  streams->encoder.start(rd_stream_parts(components, chunk_tokens), coded);
  return streams;
}

RdDecoderOnDevice::RdDecoderOnDevice(const CodecModel& consumer, const std::vector<RdUnitDecoder>& units,
                                     const RdQuantiser& quantiser)
    : consumer_(consumer), tables_(quantiser) {
  for (const RdUnitDecoder& unit : units) {
    units_.push_back({DeviceMap(stacked(unit), kBF16, kDevice),
                      DeviceMap(unit.anchor_basis, kBF16, kDevice),
                      {unit.mean, kDevice},
                      unit.anchor_map.rows,
                      !unit.anchor_basis.empty()});
    most_components_ = std::max(most_components_, unit.map.rows);
  }
}

std::vector<RdDecoderOnDevice::Block> RdDecoderOnDevice::blocks(std::span<const Shape> shapes) const {
  size_t bytes = 0;
  for (const Shape& shape : shapes) bytes += static_cast<size_t>(shape.tokens * padded(shape.components)) * 2;
  const std::shared_ptr<const kernels::DeviceBuffer> memory = block_memory(bytes);
  std::byte* next = memory->data();
  const auto words = static_cast<int64_t>(bytes / sizeof(float));
  kernels::clear({next, 1, words, words, kF32, kDevice});  // what rows have behind their codes
  std::vector<Block> made;
  for (const auto& [tokens, components] : shapes) {
    made.push_back({memory, {next, tokens, components, padded(components), kBF16, kDevice}});
    next += tokens * padded(components) * 2;
  }
  return made;
}

std::shared_ptr<kernels::StreamDecoder> RdDecoderOnDevice::stream_decoder(size_t stream_bytes) const {
  return reused<kernels::StreamDecoder>(stream_bytes);
}

void RdDecoderOnDevice::put(kernels::ConstMatrix codes, const Block& block, int64_t first) {
  thread_local kernels::GrowBuffer memory;
  if (codes.rows == 0) return;
  const kernels::Matrix turned = memory.matrix(codes.columns, codes.rows, kBF16);
  for (int64_t component = 0; component < codes.rows; ++component) {
    const float* row = codes.row<float>(component);
    for (int64_t token = 0; token < codes.columns; ++token) {
      turned.row<kernels::BFloat16>(token)[component] = kernels::to_bfloat16(row[token]);
    }
  }
  kernels::Matrix place = block.codes;
  place.data = place.row<uint16_t>(first);
  place.rows = codes.columns;
  kernels::copy(turned, place);
}

// [anchor over its root mean square, codes]: the first part stays where the anchor has an owner that keeps it. Of few
// directions of the anchor it is their product with it.
kernels::ConstMatrix RdDecoderOnDevice::operand(const Unit& unit, const kernels::ConstMatrix& anchor,
                                                const PayloadPlace& place, const Block& block) const {
  thread_local KeptAnchor own;
  thread_local kernels::GrowBuffer seen_memory, operand_memory;
  kernels::Matrix codes = block.codes;
  codes.columns = codes.row_stride;
  if (unit.directions == 0) return codes;
  KeptAnchor* const kept = place.kept_anchor != nullptr ? place.kept_anchor : &own;
  if (kept == &own) own.restart(place.first_position, place.tokens);
  kernels::Matrix all = kept->rows(anchor, place.first_position, kBF16, padded(most_components_));
  const int64_t first = aligned(unit.directions);
  if (unit.few_directions) {
    const kernels::Matrix seen = seen_memory.matrix(place.tokens, unit.directions, kF32, kDevice);
    kernels::gemm_f32({.a = all, .b = unit.basis.top(anchor.columns), .c = seen});
    all = operand_memory.matrix(place.tokens, first + codes.columns, kBF16, kDevice);
    kernels::convert(seen, columns_of(all, 0, unit.directions));
    kernels::clear(columns_of(all, unit.directions, first - unit.directions));
  }
  kernels::copy(codes, columns_of(all, first, codes.columns));
  all.columns = first + codes.columns;
  return all;
}

void RdDecoderOnDevice::decode(size_t index, const CodedUnit& unit, const PayloadPlace& place, const Block& block,
                               DecodedLayer& out) const {
  thread_local kernels::GrowBuffer anchor_memory;
  const Unit& maps = units_[index];
  SCD_CHECK(place.tokens <= kMaxBlockTokens, "tokens of a block");
  kernels::ConstMatrix anchor;
  if (maps.directions > 0) anchor = on_device(place.anchor, anchor_memory);
  const kernels::ConstMatrix inputs = operand(maps, anchor, place, block);
  const auto width = static_cast<int64_t>(maps.mean.size());
  const kernels::Matrix state = out.on_device.memory.matrix(place.tokens, width, kF32, kDevice);
  kernels::gemm_f32({.a = inputs, .b = maps.maps.top(inputs.columns), .c = state, .bias = maps.mean});
  out.tokens = place.tokens;
  out.keys.clear();
  out.values.clear();
  out.hidden.clear();
  out.on_device.present = true;
  out.on_device.rope = unit.residual ? nullptr : &consumer_.rope;
  if (unit.residual) {
    out.kind = DecodedKind::kResidual;
    kernels::multiply_by_rms(state, anchor, state);
    out.on_device.hidden = state;
    return;
  }
  out.kind = DecodedKind::kKeysValues;
  out.on_device.keys = columns_of(state, 0, width / 2);
  out.on_device.values = columns_of(state, width / 2, width / 2);
}

}  // namespace scd
