#include "common/codec/rd/rd_quantiser.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/codec/rd/packed_codes.h"

namespace scd {
namespace {

constexpr float kSqrt2 = 1.41421356f;
constexpr int32_t kCentre = 128;  // of the 256 symbols of rANS
constexpr int32_t kLargestSymbol = 127;
constexpr int32_t kLargestEscaped = 1'000'000'000;
constexpr size_t kHeadBytes = sizeof(uint32_t);  // bit 31: packed; the others: bytes of the first rANS stream
constexpr uint32_t kPackedBit = 1U << 31;

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kFailedPrecondition, "codec rd: " + what); }

bool falls(std::span<const float> values) {
  return std::ranges::is_sorted(values, std::greater{}) && (values.empty() || values.back() > 0);
}

RansTable make_rans_table(const DenseMatrix& frequencies, int64_t row) {
  RansFrequencies table;
  for (int64_t i = 0; i < frequencies.columns; ++i) {
    const float value = frequencies.at(row, i);
    if (!(value >= 0 && value <= static_cast<float>(kRansTotal))) refuse("a frequency is out of range");
    table[static_cast<size_t>(i)] = static_cast<uint16_t>(value);
  }
  if (table[kRdEscape] == 0) refuse("a table without an escape");
  try {
    return RansTable(table);
  } catch (const Error& error) {
    refuse(error.what());
  }
}

bool is_known(const RansTable& table, int32_t integer) {
  return std::abs(integer) <= kLargestSymbol && table.frequency(static_cast<uint8_t>(integer + kCentre)) > 0;
}

SymbolRange known_around_zero(const RansTable& table) {
  SymbolRange range{1, -1};  // empty: zero itself may be unknown
  if (!is_known(table, 0)) return range;
  range = {0, 0};
  while (is_known(table, range.low - 1)) --range.low;
  while (is_known(table, range.high + 1)) ++range.high;
  return range;
}

// Integers that have a code of so many bits.
SymbolRange packed_range(int bits) {
  const int32_t centre = 1 << (bits - 1);
  return {1 - centre, centre - 1};
}

// The width that costs least by the table's own frequencies, the smaller one of equals: b bits a value, and 32 more for
// each that escapes.
int packed_bits_of(const RansTable& table) {
  int best = 0;
  uint64_t best_cost = UINT64_MAX;
  for (int bits = 1; bits <= kMaxPackedBits; ++bits) {
    const SymbolRange range = packed_range(bits);
    uint64_t inside = 0;
    for (int32_t q = range.low; q <= range.high; ++q) inside += table.frequency(static_cast<uint8_t>(q + kCentre));
    const uint64_t cost = kRansTotal * static_cast<uint64_t>(bits) + 32 * (kRansTotal - inside);
    if (cost < best_cost) best = bits, best_cost = cost;
  }
  return best;
}

void append_escapes(const std::vector<int32_t>& escapes, ByteBuffer& out) {
  const auto bytes = std::as_bytes(std::span(escapes));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// Calls `action` with the place of every escape in a row, as long as it returns true. They are few.
template <class Action>
bool for_each_escape(std::span<const uint8_t> symbols, const Action& action) {
  for (size_t at = 0; at < symbols.size(); ++at) {
    const void* found = std::memchr(symbols.data() + at, kRdEscape, symbols.size() - at);
    if (found == nullptr) return true;
    at = static_cast<size_t>(static_cast<const uint8_t*>(found) - symbols.data());
    if (!action(at)) return false;
  }
  return true;
}

// Puts escaped values into a row, off the front of `escapes`; returns what is wrong with them, or nothing.
std::string fill_escapes(std::span<const uint8_t> symbols, CellPlace cell, std::span<const std::byte>& escapes,
                         float* values) {
  std::string problem;
  for_each_escape(symbols, [&](size_t at) {
    int32_t integer;
    if (escapes.size() < sizeof integer) {
      problem = "an escaped value is missing";
      return false;
    }
    std::memcpy(&integer, escapes.data(), sizeof integer);
    if (std::abs(int64_t{integer}) > kLargestEscaped) {
      problem = "an escaped value is out of range";
      return false;
    }
    escapes = escapes.subspan(sizeof integer);
    values[at] = rd_value_of(integer, cell);
    return true;
  });
  return problem;
}

template <class Element>
std::span<Element> row_of(Element* data, int64_t columns) {
  return {data, static_cast<size_t>(columns)};
}

}  // namespace

size_t rd_table_of(float ratio) {
  float bound = kRdFirstRatio * kSqrt2;
  float next = 2 * kRdFirstRatio;
  size_t table = 0;
  while (table + 1 < kRdTables && ratio >= bound) {
    ++table;
    bound = std::exchange(next, 2 * bound);
  }
  return table;
}

float rd_ratio_of(size_t table) { return kRdFirstRatio * std::exp2(0.25f + 0.5f * static_cast<float>(table)); }

int64_t rd_streams(int64_t components, int64_t tokens) {
  const int64_t each = rd_stream_components(tokens);
  return std::max(int64_t{1}, (components + each - 1) / each);
}

std::vector<kernels::StreamPart> rd_stream_parts(int64_t components, std::span<const int64_t> chunk_tokens) {
  std::vector<kernels::StreamPart> parts;
  int64_t first_token = 0;
  for (const int64_t tokens : chunk_tokens) {
    const int64_t each = rd_stream_components(tokens);
    for (int64_t i = 0; i < rd_streams(components, tokens); ++i) {
      parts.push_back({i * each, std::min(each, components - i * each), first_token, tokens});
    }
    first_token += tokens;
  }
  return parts;
}

std::vector<std::span<const kernels::CodedStream>> rd_streams_by_chunk(std::span<const kernels::CodedStream> streams,
                                                                       int64_t components,
                                                                       std::span<const int64_t> chunk_tokens) {
  std::vector<std::span<const kernels::CodedStream>> chunks;
  for (const int64_t tokens : chunk_tokens) {
    const auto count = static_cast<size_t>(rd_streams(components, tokens));
    chunks.push_back(streams.first(count));
    streams = streams.subspan(count);
  }
  return chunks;
}

RdQuantiser::RdQuantiser(RdQuantiserSettings settings) : settings_(std::move(settings)) {
  if (settings_.steps.empty() || settings_.steps.size() > kRdMaxLevels) refuse("expected 1 to 16 levels");
  if (!(settings_.steps.front() > 0) || !std::ranges::is_sorted(settings_.steps)) refuse("steps of levels must rise");
  for (const auto& layer : settings_.deviations) {
    if (!falls(layer)) refuse("deviations of components must be positive and fall");
  }
  if (settings_.frequencies.rows != int64_t{kRdTables} || settings_.frequencies.columns != int64_t{kRansSymbols} ||
      settings_.shifts.size() != kRdTables) {
    refuse("expected 18 tables of 256 frequencies");
  }
  for (size_t index = 0; index < kRdTables; ++index) tables_.push_back(make_table(settings_, index));
}

RdQuantiser::Table RdQuantiser::make_table(const RdQuantiserSettings& settings, size_t index) {
  const RansTable rans = make_rans_table(settings.frequencies, static_cast<int64_t>(index));
  return {rans, known_around_zero(rans), packed_bits_of(rans), settings.shifts[index]};
}

int64_t RdQuantiser::components(int32_t layer, int32_t level) const {
  const std::vector<float>& deviations = settings_.deviations.at(static_cast<size_t>(layer));
  const float smallest = kRdSmallestRatio * settings_.steps.at(static_cast<size_t>(level));
  return std::ranges::upper_bound(deviations, smallest, std::greater{}) - deviations.begin();
}

size_t RdQuantiser::table_of(int32_t layer, int32_t level, int64_t component) const {
  const float deviation = settings_.deviations[static_cast<size_t>(layer)][static_cast<size_t>(component)];
  return rd_table_of(deviation / settings_.steps[static_cast<size_t>(level)]);
}

size_t RdQuantiser::max_bytes(int64_t values) {
  const auto streams = static_cast<size_t>(values / (kRdStreamSymbols / 2) + 1);
  return streams * (2 * kHeadBytes + sizeof(uint32_t) * kRansLanes) +
         static_cast<size_t>(values) * (sizeof(uint16_t) + sizeof(int32_t));
}

void RdQuantiser::encode(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out,
                         RdForm form) const {
  if (form == RdForm::kPacked) return encode_packed(layer, level, values, out);
  encode_entropy(layer, level, values, out);
}

void RdQuantiser::encode_entropy(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out) const {
  const float step = settings_.steps[static_cast<size_t>(level)];
  const auto symbols = std::make_unique_for_overwrite<uint8_t[]>(static_cast<size_t>(values.rows * values.columns));
  std::vector<ByteBuffer> words;
  std::vector<std::vector<int32_t>> escapes;
  for (const kernels::StreamPart& part : rd_stream_parts(values.rows, std::span(&values.columns, 1))) {
    std::vector<int32_t>& escaped = escapes.emplace_back();
    RansEncoder encoder;
    for (int64_t row = part.first_row; row < part.first_row + part.rows; ++row) {
      const Table& table = tables_[table_of(layer, level, row)];
      const auto source = row_of(values.row<float>(row), values.columns);
      const auto run = row_of(symbols.get() + row * values.columns, values.columns);
      if (quantise_row(source, step, table.known, kCentre, run.data())) {
        for_each_escape(run, [&](size_t at) {
          const int32_t integer = rd_quantise(source[at], step);
          if (is_known(table.rans, integer)) {  // beyond a gap in the table
            run[at] = static_cast<uint8_t>(integer + kCentre);
          } else {
            escaped.push_back(integer);
          }
          return true;
        });
      }
      encoder.put(table.rans, run);
    }
    encoder.finish(words.emplace_back());
  }
  std::vector<kernels::CodedStream> streams;
  for (size_t i = 0; i < words.size(); ++i) streams.push_back({words[i], std::as_bytes(std::span(escapes[i]))});
  append_entropy_body(streams, out);
}

void RdQuantiser::append_entropy_body(std::span<const kernels::CodedStream> streams, ByteBuffer& out) {
  std::vector<uint32_t> head;
  size_t bytes = 0;
  for (const auto& [rans, escapes] : streams) {
    head.push_back(static_cast<uint32_t>(rans.size()));
    bytes += rans.size() + escapes.size();
  }
  for (const kernels::CodedStream& stream : streams.first(streams.size() - 1)) {
    head.push_back(static_cast<uint32_t>(stream.escapes.size() / sizeof(int32_t)));
  }
  out.reserve(out.size() + head.size() * kHeadBytes + bytes);
  const auto append = [&](std::span<const std::byte> part) { out.insert(out.end(), part.begin(), part.end()); };
  append(std::as_bytes(std::span(head)));
  for (const kernels::CodedStream& stream : streams) append(stream.rans);
  for (const kernels::CodedStream& stream : streams) append(stream.escapes);
}

std::optional<std::vector<kernels::CodedStream>> RdQuantiser::entropy_streams(std::span<const std::byte> body,
                                                                              int64_t components, int64_t tokens) {
  const auto count = static_cast<size_t>(rd_streams(components, tokens));
  std::vector<uint32_t> head(2 * count - 1);
  const auto head_bytes = std::as_writable_bytes(std::span(head));
  if (body.size() < head_bytes.size()) return std::nullopt;
  std::ranges::copy(body.first(head_bytes.size()), head_bytes.begin());
  body = body.subspan(head_bytes.size());
  const auto taken = [&body](size_t bytes) { return std::exchange(body, body.subspan(bytes)).first(bytes); };
  std::vector<kernels::CodedStream> streams(count);
  for (size_t i = 0; i < count; ++i) {
    if (head[i] > body.size()) return std::nullopt;
    streams[i].rans = taken(head[i]);
  }
  for (size_t i = 0; i + 1 < count; ++i) {
    if (head[count + i] > body.size() / sizeof(int32_t)) return std::nullopt;
    streams[i].escapes = taken(head[count + i] * sizeof(int32_t));
  }
  streams.back().escapes = body;
  return streams;
}

void RdQuantiser::encode_packed(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out) const {
  const float step = settings_.steps[static_cast<size_t>(level)];
  std::vector<uint8_t> codes(static_cast<size_t>(values.columns));
  std::vector<int32_t> escapes;
  const auto head = std::as_bytes(std::span(&kPackedBit, 1));
  out.insert(out.end(), head.begin(), head.end());
  for (int64_t row = 0; row < values.rows; ++row) {
    const int bits = tables_[table_of(layer, level, row)].packed_bits;
    const auto source = row_of(values.row<float>(row), values.columns);
    if (quantise_row(source, step, packed_range(bits), 1 << (bits - 1), codes.data())) {
      for_each_escape(codes, [&](size_t at) {
        escapes.push_back(rd_quantise(source[at], step));
        return true;
      });
    }
    const size_t start = out.size();
    out.resize(start + packed_bytes(codes.size(), bits));
    pack_codes(codes, bits, out.data() + start);
  }
  append_escapes(escapes, out);
}

std::string RdQuantiser::decode(int32_t layer, int32_t level, std::span<const std::byte> body,
                                kernels::Matrix values) const {
  if (body.size() < kHeadBytes) return "its stream is cut off";
  uint32_t head;
  std::memcpy(&head, body.data(), sizeof head);
  if (head == kPackedBit) return decode_packed(layer, level, body.subspan(kHeadBytes), values);
  if ((head & kPackedBit) != 0) return "it is of an unknown form";
  const auto streams = entropy_streams(body, values.rows, values.columns);
  return streams ? decode_entropy(layer, level, *streams, values) : "its stream is cut off";
}

std::string RdQuantiser::decode_entropy(int32_t layer, int32_t level, std::span<const kernels::CodedStream> streams,
                                        kernels::Matrix values) const {
  std::vector<uint8_t> run(static_cast<size_t>(values.columns));
  const auto parts = rd_stream_parts(values.rows, std::span(&values.columns, 1));
  for (size_t i = 0; i < parts.size(); ++i) {
    RansDecoder decoder(streams[i].rans);
    std::span<const std::byte> escapes = streams[i].escapes;
    for (int64_t row = parts[i].first_row; row < parts[i].first_row + parts[i].rows; ++row) {
      const Table& table = tables_[table_of(layer, level, row)];
      const CellPlace cell{settings_.steps[static_cast<size_t>(level)], table.shift};
      decoder.take(table.rans, run);
      if (!dequantise_row(run, kCentre, cell, values.row<float>(row))) continue;
      if (std::string problem = fill_escapes(run, cell, escapes, values.row<float>(row)); !problem.empty()) {
        return problem;
      }
    }
    if (!decoder.finished() || !escapes.empty()) return "its stream is not sound";
  }
  return "";
}

std::string RdQuantiser::decode_packed(int32_t layer, int32_t level, std::span<const std::byte> body,
                                       kernels::Matrix values) const {
  const auto count = static_cast<size_t>(values.columns);
  size_t codes_bytes = 0;
  for (int64_t row = 0; row < values.rows; ++row) {
    codes_bytes += packed_bytes(count, tables_[table_of(layer, level, row)].packed_bits);
  }
  if (codes_bytes > body.size()) return "its codes are cut off";
  auto escapes = body.subspan(codes_bytes);
  const std::byte* packed = body.data();
  std::vector<uint8_t> codes(count);
  for (int64_t row = 0; row < values.rows; ++row) {
    const Table& table = tables_[table_of(layer, level, row)];
    const CellPlace cell{settings_.steps[static_cast<size_t>(level)], table.shift};
    if (!unpack_codes(packed, table.packed_bits, codes)) return "its padding is not zero";
    packed += packed_bytes(count, table.packed_bits);
    if (!dequantise_row(codes, 1 << (table.packed_bits - 1), cell, values.row<float>(row))) continue;
    if (std::string problem = fill_escapes(codes, cell, escapes, values.row<float>(row)); !problem.empty()) {
      return problem;
    }
  }
  return escapes.empty() ? "" : "there are bytes behind its escaped values";
}

}  // namespace scd
