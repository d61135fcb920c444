#include "common/codec/rd/packed_codes.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace scd {
namespace {

static_assert(std::endian::native == std::endian::little, "eight codes are handled as one little-endian number");

constexpr size_t kGroup = 8;  // codes that fill `bits` whole bytes

// Masks of the low 4, 2 and 1 codes of each half, quarter and eighth of 64 bits: eight codes a byte apart close up (or
// spread) in three steps of shifting every other part.
struct Masks {
  uint64_t fours, pairs, singles;
  explicit Masks(int bits)
      : fours((uint64_t{1} << 4 * bits) - 1),
        pairs(((uint64_t{1} << 2 * bits) - 1) * 0x0000'0001'0000'0001U),
        singles(((uint64_t{1} << bits) - 1) * 0x0001'0001'0001'0001U) {}
};

inline uint64_t close_up(uint64_t bytes, int bits, const Masks& masks) {
  bytes = (bytes & masks.singles) | (bytes >> (8 - bits) & masks.singles << bits);
  bytes = (bytes & masks.pairs) | (bytes >> (16 - 2 * bits) & masks.pairs << 2 * bits);
  return (bytes & masks.fours) | (bytes >> (32 - 4 * bits) & masks.fours << 4 * bits);
}

inline uint64_t spread(uint64_t codes, int bits, const Masks& masks) {
  codes = (codes & masks.fours) | (codes & masks.fours << 4 * bits) << (32 - 4 * bits);
  codes = (codes & masks.pairs) | (codes & masks.pairs << 2 * bits) << (16 - 2 * bits);
  return (codes & masks.singles) | (codes & masks.singles << bits) << (8 - bits);
}

}  // namespace

void pack_codes(std::span<const uint8_t> codes, int bits, std::byte* out) {
  if (bits == kMaxPackedBits) {
    std::ranges::copy(std::as_bytes(codes), out);
    return;
  }
  const Masks masks(bits);
  const auto stride = static_cast<size_t>(bits);
  size_t left = packed_bytes(codes.size(), bits);
  size_t i = 0;
  // Eight bytes are written for every group; the next one overwrites what is not its own.
  for (; i + kGroup <= codes.size() && left >= sizeof(uint64_t); i += kGroup, out += stride, left -= stride) {
    uint64_t group;
    std::memcpy(&group, codes.data() + i, sizeof group);
    group = close_up(group, bits, masks);
    std::memcpy(out, &group, sizeof group);
  }
  for (; i < codes.size(); i += kGroup) {
    uint64_t group = 0;
    std::memcpy(&group, codes.data() + i, std::min(kGroup, codes.size() - i));
    group = close_up(group, bits, masks);
    const size_t bytes = std::min(left, stride);
    std::memcpy(out, &group, bytes);
    out += bytes;
    left -= bytes;
  }
}

bool unpack_codes(const std::byte* packed, int bits, std::span<uint8_t> codes) {
  if (bits == kMaxPackedBits) {
    std::ranges::copy_n(packed, std::ssize(codes), std::as_writable_bytes(codes).begin());
    return true;
  }
  const Masks masks(bits);
  const auto stride = static_cast<size_t>(bits);
  size_t left = packed_bytes(codes.size(), bits);
  size_t i = 0;
  // Eight bytes are read for every group, of which the mask keeps `bits`.
  for (; i + kGroup <= codes.size() && left >= sizeof(uint64_t); i += kGroup, packed += stride, left -= stride) {
    uint64_t group;
    std::memcpy(&group, packed, sizeof group);
    group = spread(group, bits, masks);
    std::memcpy(codes.data() + i, &group, sizeof group);
  }
  for (; i < codes.size(); i += kGroup) {
    uint64_t group = 0;
    const size_t bytes = std::min(left, stride);
    std::memcpy(&group, packed, bytes);
    packed += bytes;
    left -= bytes;
    const size_t count = std::min(kGroup, codes.size() - i);
    if (count < kGroup && group >> count * stride != 0) return false;
    group = spread(group, bits, masks);
    std::memcpy(codes.data() + i, &group, count);
  }
  return true;
}

}  // namespace scd
