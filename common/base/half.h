// IEEE binary16.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace scd {

// Round to nearest, ties to even; magnitudes from 65520 on become infinity.
inline uint16_t to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::fabs(value);
  if (!(magnitude < 65520.0f)) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 6.103515625e-5f) {  // subnormal: units of 2^-24
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 16777216.0f)));
  }
  const uint32_t rebased = (bits & 0x7FFFFFFFu) - (uint32_t{112} << 23);
  return static_cast<uint16_t>(sign | ((rebased + 0xFFFu + ((rebased >> 13) & 1u)) >> 13));
}

inline float from_half(uint16_t half) {
  const float sign = (half & 0x8000u) != 0 ? -1.0f : 1.0f;
  const uint32_t magnitude = half & 0x7FFFu;
  if (magnitude < 0x0400u) return sign * static_cast<float>(magnitude) * 0x1p-24f;  // subnormal
  if (magnitude >= 0x7C00u) return magnitude == 0x7C00u ? sign * INFINITY : NAN;
  return sign * std::bit_cast<float>((magnitude << 13) + (uint32_t{112} << 23));
}

}  // namespace scd
