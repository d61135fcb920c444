// Conversions of 16-bit floats, inline so that loops over them vectorise.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/matrix.h"

namespace scd::kernels {

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// To nearest, ties to even; a NaN keeps its sign and becomes quiet.
inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
}

// Exact. The multiplication by 2^112 moves the exponent bias from 15 to 127 and normalises subnormals.
inline float f16_to_float(uint16_t bits) {
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fffu) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | special | sign);
}

inline float load_float(float value) { return value; }
inline float load_float(BFloat16 value) { return bf16_to_float(value.bits); }
inline void store_float(float value, float& to) { to = value; }
inline void store_float(float value, BFloat16& to) { to.bits = float_to_bf16(value); }

}  // namespace scd::kernels
