// Codes of a fixed number of bits, one after the other: the first in the low bits of the first byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace scd {

inline constexpr int kMaxPackedBits = 8;

constexpr size_t packed_bytes(size_t count, int bits) { return (count * static_cast<size_t>(bits) + 7) / 8; }

// codes below 2^bits, bits in [1, 8], -> packed_bytes(codes.size(), bits) bytes at `out`. Bits behind the last are
// zero.
void pack_codes(std::span<const uint8_t> codes, int bits, std::byte* out);
// The reverse. False when bits behind the last are not zero.
[[nodiscard]] bool unpack_codes(const std::byte* packed, int bits, std::span<uint8_t> codes);

}  // namespace scd
