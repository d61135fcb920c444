#include "common/codec/rd/rd_on_device.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
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
// The mean is a factor of ones: once rounded to BF16, and once what that leaves.
constexpr int64_t kMeanRows = 2;
constexpr int64_t kAlignedColumns = 8;  // 16 bytes, as products want rows to begin

int64_t aligned(int64_t columns) { return (columns + kAlignedColumns - 1) / kAlignedColumns * kAlignedColumns; }

template <class M>
M columns_of(M m, int64_t first, int64_t count) {
  m.data = m.dtype == kF32 ? static_cast<decltype(m.data)>(m.template row<float>(0) + first)
                           : static_cast<decltype(m.data)>(m.template row<uint16_t>(0) + first);
  m.columns = count;
  return m;
}

constexpr size_t kMostUnused = 8;

// What was made on this thread and is no longer used: its work is queued in order, so it may be used again at once.
template <class T>
std::vector<T>& unused() {
  thread_local std::vector<T> all;
  return all;
}

template <class T>
T taken() {
  if (unused<T>().empty()) return T{};
  T last = std::move(unused<T>().back());
  unused<T>().pop_back();
  return last;
}

// Back among the unused at the end, which is to be on the same thread.
template <class T>
std::shared_ptr<T> shared(T made) {
  return {new T(std::move(made)), [](T* used) {
            if (unused<T>().size() < kMostUnused) unused<T>().push_back(std::move(*used));
            delete used;
          }};
}

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

// Where codes begin in what the maps are multiplied by.
int64_t head_of(int64_t anchor) { return aligned(anchor + kMeanRows); }

// Of h, [hidden of B, dims of y]: here a second product would cost more than it saves.
DenseMatrix whole_anchor_map(const RdUnitDecoder& unit) {
  if (unit.anchor_basis.empty()) return unit.anchor_map;
  DenseMatrix whole(unit.anchor_basis.rows, unit.anchor_map.columns);
  kernels::gemm_f32({.a = unit.anchor_basis.view(), .b = unit.anchor_map.view(), .c = whole.view()});
  return whole;
}

// [anchor map; mean; zeros; map; zeros]
DenseMatrix stacked(const RdUnitDecoder& unit) {
  const auto width = std::ssize(unit.mean);
  const DenseMatrix anchor_map = whole_anchor_map(unit);
  const int64_t anchor = anchor_map.rows;
  DenseMatrix all(head_of(anchor) + aligned(unit.map.rows), width);
  std::ranges::copy(anchor_map.values, all.values.begin());
  for (int64_t i = 0; i < width; ++i) {
    const float mean = unit.mean[static_cast<size_t>(i)];
    all.at(anchor, i) = kernels::to_float(kernels::to_bfloat16(mean));
    all.at(anchor + 1, i) = mean - all.at(anchor, i);
  }
  std::ranges::copy(unit.map.values, all.values.begin() + head_of(anchor) * width);
  return all;
}

// As many as any head has behind its anchor.
DenseMatrix ones_and_zeros(int64_t rows) {
  DenseMatrix all(rows, aligned(kMeanRows) + kAlignedColumns);
  for (int64_t row = 0; row < rows; ++row) std::fill_n(all.view().row<float>(row), kMeanRows, 1.0f);
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
  thread_local kernels::GrowBuffer keys_memory, values_memory, residual_memory, anchor_memory, scaled_memory;
  if (out.rows == 0) return;
  const Unit& maps = units_[index];
  const kernels::ConstMatrix map = maps.map.top(out.rows);
  const std::span<const float> offset = maps.offset;
  kernels::fill_rows(out, offset.first(static_cast<size_t>(out.rows)));
  int64_t column = 0;
  // The map's next columns times rows of x.
  const auto add = [&](const kernels::ConstMatrix& x) {
    kernels::gemm_f32({.a = columns_of(map, column, x.columns), .b = x, .c = out, .transpose_b = true, .beta = 1.0f});
    column += x.columns;
  };
  const auto scaled = [&](const kernels::ConstMatrix& x, const kernels::ConstMatrix& by) {
    const kernels::Matrix result = scaled_memory.matrix(x.rows, x.columns, kF32, kDevice);
    kernels::divide_by_rms(x, by, result);
    return kernels::ConstMatrix(result);
  };
  kernels::ConstMatrix anchor;
  if (chunk.anchor.data != nullptr) anchor = on_device(chunk.anchor, anchor_memory);
  if (unit.residual) {
    add(scaled(on_device(chunk.residual, residual_memory), anchor));
  } else {
    const kernels::Matrix keys = keys_memory.matrix(chunk.keys.rows, chunk.keys.columns, kF32, kDevice);
    kernels::copy(chunk.keys, keys);
    rotate_chunk(keys, producer_.head_dim, chunk.first_position, producer_.rope, kernels::RopeDirection::kUnrotate);
    add(keys);
    add(on_device(chunk.values, values_memory));
  }
  if (column < map.columns) add(scaled(anchor, anchor));
}

std::shared_ptr<RdEncoderOnDevice::Streams> RdEncoderOnDevice::begin(size_t index, const CodedUnit& unit,
                                                                     const LayerChunk& rows,
                                                                     std::span<const int64_t> chunk_tokens,
                                                                     int64_t components, int32_t level) const {
  Streams streams = taken<Streams>();
  const int64_t tokens = unit.residual ? rows.residual.rows : rows.keys.rows;
  const kernels::Matrix numbers = streams.encoder.numbers(components, tokens);
  codes(index, unit, rows, numbers);
  streams.codes = numbers;
  streams.encoder.start(chunk_tokens, tables_.rows(index, level));
  return shared(std::move(streams));
}

RdDecoderOnDevice::RdDecoderOnDevice(const CodecModel& consumer, const std::vector<RdUnitDecoder>& units,
                                     const RdQuantiser& quantiser)
    : consumer_(consumer), tables_(quantiser), ones_(ones_and_zeros(kMaxBlockTokens), kBF16, kDevice) {
  for (const RdUnitDecoder& unit : units) {
    units_.push_back({DeviceMap(stacked(unit), kBF16, kDevice), unit.anchor_dims(), std::ssize(unit.mean)});
  }
}

std::vector<RdDecoderOnDevice::Block> RdDecoderOnDevice::blocks(std::span<const Shape> shapes) const {
  size_t bytes = 0;
  for (const Shape& shape : shapes) bytes += static_cast<size_t>(shape.tokens * aligned(shape.components)) * 2;
  auto memory = taken<kernels::DeviceBuffer>();
  if (memory.size() < bytes) {
    memory = {};
    unused<kernels::DeviceBuffer>().clear();  // each as small, or room for this one
    memory = kernels::DeviceBuffer(kDevice, bytes + bytes / 4);
  }
  const auto words = static_cast<int64_t>(bytes / sizeof(float));
  kernels::clear({memory.data(), 1, words, words, kF32, kDevice});  // what rows have behind their codes
  std::byte* next = memory.data();
  const std::shared_ptr<const kernels::DeviceBuffer> kept = shared(std::move(memory));
  std::vector<Block> made;
  for (const auto& [tokens, components] : shapes) {
    made.push_back({kept, {next, tokens, components, aligned(components), kBF16, kDevice}});
    next += tokens * aligned(components) * 2;
  }
  return made;
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

void RdDecoderOnDevice::decode(size_t index, const CodedUnit& unit, const PayloadPlace& place, const Block& block,
                               DecodedLayer& out) const {
  thread_local kernels::GrowBuffer anchor_memory, operand_memory;
  const Unit& maps = units_[index];
  const int64_t head = head_of(maps.anchor), inputs = head + block.codes.row_stride;
  SCD_CHECK(place.tokens <= kMaxBlockTokens, "tokens of a block");
  const kernels::Matrix operand = operand_memory.matrix(place.tokens, inputs, kBF16, kDevice);
  kernels::ConstMatrix anchor;
  if (maps.anchor > 0) {
    anchor = on_device(place.anchor, anchor_memory);
    kernels::divide_by_rms(anchor, anchor, columns_of(operand, 0, maps.anchor));
  }
  kernels::copy(columns_of(ones_.top(place.tokens), 0, head - maps.anchor),
                columns_of(operand, maps.anchor, head - maps.anchor));
  kernels::ConstMatrix codes = block.codes;
  codes.columns = codes.row_stride;
  kernels::copy(codes, columns_of(operand, head, codes.columns));
  const kernels::Matrix state = out.on_device.memory.matrix(place.tokens, maps.width, kF32, kDevice);
  kernels::gemm_f32({.a = operand, .b = maps.maps.top(inputs), .c = state});
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
  const kernels::Matrix keys = columns_of(state, 0, maps.width / 2);
  rotate_chunk(keys, consumer_.head_dim, place.first_position, consumer_.rope, kernels::RopeDirection::kRotate);
  out.on_device.keys = keys;
  out.on_device.values = columns_of(state, maps.width / 2, maps.width / 2);
}

}  // namespace scd
