#include "common/base/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace scd {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected Castagnoli

constexpr std::array<uint32_t, 256> make_byte_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}
constexpr auto kByteTable = make_byte_table();

uint32_t crc_bytewise(const std::byte* data, size_t size, uint32_t crc) {
  for (size_t i = 0; i < size; ++i) crc = (crc >> 8) ^ kByteTable[(crc ^ static_cast<uint32_t>(data[i])) & 0xFF];
  return crc;
}

#if defined(__x86_64__)
// The crc32 instruction has a latency of three cycles and a throughput of one, so three independent stripes of
// kStripe bytes run side by side and are joined by multiplying with x^(8*kStripe) in tables.
constexpr size_t kStripe = 1024;

// Applies "append kStripe zero bytes" to a CRC: linear, so four 256-entry tables do it.
struct ShiftTables {
  std::array<std::array<uint32_t, 256>, 4> table{};
  ShiftTables() {
    std::array<uint32_t, 32> column{};
    for (int bit = 0; bit < 32; ++bit) {
      uint32_t crc = uint32_t{1} << bit;
      for (size_t i = 0; i < kStripe; ++i) crc = (crc >> 8) ^ kByteTable[crc & 0xFF];
      column[static_cast<size_t>(bit)] = crc;
    }
    for (size_t lane = 0; lane < 4; ++lane)
      for (size_t byte = 0; byte < 256; ++byte)
        for (size_t bit = 0; bit < 8; ++bit)
          if ((byte >> bit) & 1) table[lane][byte] ^= column[lane * 8 + bit];
  }
  uint32_t operator()(uint32_t crc) const {
    return table[0][crc & 0xFF] ^ table[1][(crc >> 8) & 0xFF] ^ table[2][(crc >> 16) & 0xFF] ^ table[3][crc >> 24];
  }
};

uint64_t load64(const std::byte* data) {
  uint64_t word;
  std::memcpy(&word, data, sizeof word);
  return word;
}

__attribute__((target("sse4.2"))) uint32_t crc_hardware(const std::byte* data, size_t size, uint32_t crc) {
  static const ShiftTables shift;
  while (size >= 3 * kStripe) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < kStripe; i += 8) {
      a = _mm_crc32_u64(a, load64(data + i));
      b = _mm_crc32_u64(b, load64(data + kStripe + i));
      c = _mm_crc32_u64(c, load64(data + 2 * kStripe + i));
    }
    crc = shift(shift(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b)) ^ static_cast<uint32_t>(c);
    data += 3 * kStripe;
    size -= 3 * kStripe;
  }
  uint64_t tail = crc;
  for (; size >= 8; data += 8, size -= 8) tail = _mm_crc32_u64(tail, load64(data));
  return crc_bytewise(data, size, static_cast<uint32_t>(tail));
}
#endif

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t previous) {
  const uint32_t start = ~previous;
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2") != 0;
  if (has_instruction) return ~crc_hardware(bytes.data(), bytes.size(), start);
#endif
  return ~crc_bytewise(bytes.data(), bytes.size(), start);
}

}  // namespace scd
