// Random numbers that depend on a seed and a counter alone, so that any thread of any device makes any of them.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"

namespace scd::kernels {

// splitmix64 (Steele, Lea and Flood 2014), its state being the counter.
SCD_HOST_DEVICE inline uint64_t mixed_bits(uint64_t seed, uint64_t counter) {
  uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Box and Muller 1958: one of the pair.
SCD_HOST_DEVICE inline float normal_at(uint64_t seed, uint64_t counter) {
  constexpr float kTwoPi = 6.2831853f;
  constexpr float kUnit = 0x1p-32f;
  const uint64_t bits = mixed_bits(seed, counter);
  const float radius = (static_cast<float>(bits >> 32) + 0.5f) * kUnit;
  const float turn = static_cast<float>(bits & 0xffffffffu) * kUnit;
  return sqrtf(-2.0f * logf(radius < 1.0f ? radius : 0.99999994f)) * cosf(kTwoPi * turn);
}

}  // namespace scd::kernels
