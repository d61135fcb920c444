#include "common/codec/lossless_body.h"

#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "common/codec/entropy/rans.h"

namespace scd {
namespace {

// A tensor: u16 number of exponents in its table, u32 bytes of the exponent stream; the table, an exponent (u8) and a
// frequency (u16) each; the stream; then sign and mantissa of every value, a byte each. Without a table the exponents
// are stored as they are, a byte each: noise, which no table makes shorter.
constexpr size_t kTensorHeaderBytes = 6;
constexpr size_t kTableEntryBytes = 3;
constexpr uint8_t kNotFinite = 0xFF;

template <class Integer>
void append(Integer value, ByteBuffer& out) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <class Integer>
Integer read(std::span<const std::byte> bytes, size_t at) {
  Integer value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

struct Planes {
  std::vector<uint8_t> exponents;
  std::vector<uint8_t> rest;  // sign, then 7 bits of mantissa
};

Planes split(const kernels::ConstMatrix& source) {
  ByteBuffer halves;
  for (int64_t row = 0; row < source.rows; ++row) {
    append_bf16({source.row<float>(row), static_cast<size_t>(source.columns)}, halves);
  }
  const size_t count = halves.size() / 2;
  Planes planes{std::vector<uint8_t>(count), std::vector<uint8_t>(count)};
  for (size_t i = 0; i < count; ++i) {
    const auto half = read<uint16_t>(halves, 2 * i);
    planes.exponents[i] = static_cast<uint8_t>(half >> 7);
    planes.rest[i] = static_cast<uint8_t>((half >> 8 & 0x80U) | (half & 0x7FU));
  }
  return planes;
}

void append_table(const RansFrequencies& frequencies, ByteBuffer& out) {
  for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
    if (frequencies[symbol] == 0) continue;
    append(static_cast<uint8_t>(symbol), out);
    append(frequencies[symbol], out);
  }
}

void encode_tensor(const kernels::ConstMatrix& source, ByteBuffer& out) {
  const Planes planes = split(source);
  std::array<uint64_t, kRansSymbols> counts{};
  for (const uint8_t exponent : planes.exponents) ++counts[exponent];
  const RansFrequencies frequencies = scale_to_frequencies(counts);
  const RansTable table(frequencies);
  ByteBuffer coded;
  append_table(frequencies, coded);
  const size_t entries = coded.size() / kTableEntryBytes;
  RansEncoder encoder;
  encoder.put(table, planes.exponents);
  encoder.finish(coded);
  const bool shorter = coded.size() < planes.exponents.size();
  append(static_cast<uint16_t>(shorter ? entries : 0), out);
  append(static_cast<uint32_t>(shorter ? coded.size() - entries * kTableEntryBytes : planes.exponents.size()), out);
  const auto exponents = shorter ? std::span<const std::byte>(coded) : std::as_bytes(std::span(planes.exponents));
  out.insert(out.end(), exponents.begin(), exponents.end());
  const auto rest = std::as_bytes(std::span(planes.rest));
  out.insert(out.end(), rest.begin(), rest.end());
}

std::optional<RansFrequencies> read_table(std::span<const std::byte> bytes) {
  RansFrequencies frequencies{};
  int previous = -1;
  uint32_t sum = 0;
  for (size_t at = 0; at < bytes.size(); at += kTableEntryBytes) {
    const auto symbol = read<uint8_t>(bytes, at);
    const auto frequency = read<uint16_t>(bytes, at + 1);
    if (symbol <= previous || frequency == 0 || frequency > kRansTotal) return std::nullopt;
    previous = symbol;
    frequencies[symbol] = frequency;
    sum += frequency;
  }
  if (sum != kRansTotal) return std::nullopt;
  return frequencies;
}

// Consumes a tensor's part of `body`.
std::string decode_tensor(std::span<const std::byte>& body, std::vector<uint8_t>& exponents,
                          const kernels::Matrix& target) {
  const auto count = static_cast<size_t>(target.rows * target.columns);
  if (body.size() < kTensorHeaderBytes) return "a tensor's header is cut off";
  const size_t entries = read<uint16_t>(body, 0);
  const size_t stream_bytes = read<uint32_t>(body, 2);
  body = body.subspan(kTensorHeaderBytes);
  if (entries > kRansSymbols) return std::to_string(entries) + " exponents in a table of at most 256";
  const size_t table_bytes = entries * kTableEntryBytes;
  if (body.size() < table_bytes + stream_bytes + count) return "a tensor is cut off";
  exponents.resize(count);
  const auto stream = body.subspan(table_bytes, stream_bytes);
  if (entries == 0) {
    if (stream_bytes != count) return wrong_length(stream_bytes, count);
    std::memcpy(exponents.data(), stream.data(), count);
  } else {
    const auto frequencies = read_table(body.first(table_bytes));
    if (!frequencies) return "a table of exponents is not sound";
    RansDecoder decoder(stream);
    decoder.take(RansTable(*frequencies), exponents);
    if (!decoder.finished()) return "an exponent stream is not sound";
  }
  const auto rest = body.subspan(table_bytes + stream_bytes, count);
  auto* values = target.row<float>(0);
  bool finite = true;
  for (size_t i = 0; i < count; ++i) {
    const auto bits = static_cast<uint32_t>(rest[i]);
    finite = finite && exponents[i] != kNotFinite;
    values[i] = std::bit_cast<float>((bits & 0x80U) << 24 | uint32_t{exponents[i]} << 23 | (bits & 0x7FU) << 16);
  }
  body = body.subspan(table_bytes + stream_bytes + count);
  return finite ? "" : "a value is not finite";
}

}  // namespace

size_t LosslessBody::max_bytes(int64_t tokens) const {
  return 2 * (kTensorHeaderBytes + static_cast<size_t>(tokens * width_) * 2);
}

void LosslessBody::encode(kernels::ConstMatrix keys, kernels::ConstMatrix values, ByteBuffer& out) const {
  out.reserve(out.size() + max_bytes(keys.rows));
  encode_tensor(keys, out);
  encode_tensor(values, out);
}

std::string LosslessBody::decode(std::span<const std::byte> body, kernels::Matrix keys, kernels::Matrix values) const {
  std::vector<uint8_t> exponents;
  if (std::string problem = decode_tensor(body, exponents, keys); !problem.empty()) return problem;
  if (std::string problem = decode_tensor(body, exponents, values); !problem.empty()) return problem;
  return body.empty() ? "" : std::to_string(body.size()) + " bytes behind its end";
}

}  // namespace scd
