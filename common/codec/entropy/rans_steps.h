// The inner loops of the rANS coders: groups of kRansLanes symbols, one a lane. Variants of one loop give the same
// bits; the coders choose once at run time, tests compare them.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/codec/entropy/rans.h"

namespace scd::rans {

static_assert(std::endian::native == std::endian::little, "words are read and written as they lie in memory");

using States = std::array<uint32_t, kRansLanes>;

inline constexpr uint32_t kLowerBound = 1U << 16;  // states lie in [kLowerBound, 2^32)
inline constexpr size_t kWordBytes = sizeof(uint16_t);
inline constexpr size_t kGroupWordBytes = kRansLanes * kWordBytes;  // no group takes more

// Decodes up to `groups` groups into `symbols` and moves `words` on; stops where `words` is beyond `end`, which only a
// stream that is not sound makes it. Reads up to kGroupWordBytes beyond `end`. Returns how many groups it decoded.
using DecodeGroups = size_t (*)(const uint32_t* slots, States& states, const std::byte*& words, const std::byte* end,
                                uint8_t* symbols, size_t groups);
size_t decode_groups_portable(const uint32_t* slots, States& states, const std::byte*& words, const std::byte* end,
                              uint8_t* symbols, size_t groups);
// Only where has_avx2().
size_t decode_groups_avx2(const uint32_t* slots, States& states, const std::byte*& words, const std::byte* end,
                          uint8_t* symbols, size_t groups);

// Encodes whole groups, the last symbol first, and moves `words` down by what they write. Up to kScratchWords below the
// last word are overwritten. False when the table does not know a symbol: what was written means nothing then.
using EncodeGroups = bool (*)(const RansTable& table, States& states, uint16_t*& words,
                              std::span<const uint8_t> symbols);
bool encode_groups_portable(const RansTable& table, States& states, uint16_t*& words, std::span<const uint8_t> symbols);
// Only where has_avx2().
bool encode_groups_avx2(const RansTable& table, States& states, uint16_t*& words, std::span<const uint8_t> symbols);
inline constexpr size_t kScratchWords = kRansLanes;

bool has_avx2();

// What a decoder makes of a state before it looks for a word.
inline uint32_t decode_step(uint32_t slot, uint32_t state) {
  constexpr uint32_t kMask = kRansTotal - 1;
  const uint32_t high = state >> kRansProbabilityBits;
  return (slot >> kRansProbabilityBits & kMask) * high + high + (slot & kMask);
}

}  // namespace scd::rans
