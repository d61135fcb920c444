// Vectors as wide as the file's instruction set (8 floats, 16 with AVX-512), in GCC's vector extension: one source for
// every x86 level and other CPUs. Internal linkage throughout: a copy compiled for AVX-512 must never be linked into
// portable code.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace scd::kernels::cpu {
namespace {

#ifdef __AVX512F__
inline constexpr int64_t kLanes = 16;
#else
inline constexpr int64_t kLanes = 8;
#endif

using Lanes = float __attribute__((vector_size(kLanes * 4)));
using IntLanes = int32_t __attribute__((vector_size(kLanes * 4)));
using UintLanes = uint32_t __attribute__((vector_size(kLanes * 4)));
using HalfLanes = uint16_t __attribute__((vector_size(kLanes * 2)));

#define SCD_LANES_INLINE [[gnu::always_inline]] inline

SCD_LANES_INLINE Lanes broadcast(float value) { return value - Lanes{}; }

SCD_LANES_INLINE Lanes load(const float* from) {
  Lanes value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

SCD_LANES_INLINE Lanes load(const uint16_t* bf16) {
  HalfLanes bits;
  std::memcpy(&bits, bf16, sizeof(bits));
#ifdef __AVX512F__
  // GCC 12 would widen in two halves.
  const auto wide = (UintLanes)_mm512_cvtepu16_epi32((__m256i)bits);
#else
  const auto wide = __builtin_convertvector(bits, UintLanes);
#endif
  return (Lanes)(wide << 16);
}

SCD_LANES_INLINE void store(Lanes value, float* to) { std::memcpy(to, &value, sizeof(value)); }

// To nearest, ties to even; a NaN stays one.
SCD_LANES_INLINE void store(Lanes value, uint16_t* bf16) {
  const UintLanes bits = (UintLanes)value;
  const UintLanes rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UintLanes quiet_nan = (bits >> 16) | 0x40u;
  const HalfLanes half = __builtin_convertvector(value == value ? rounded : quiet_nan, HalfLanes);
  std::memcpy(bf16, &half, sizeof(half));
}

SCD_LANES_INLINE Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

using LaneIndices = std::make_integer_sequence<int, static_cast<int>(kLanes)>;

// Every lane meets the lane `Distance` away, then the next smaller power of two: all lanes end with the whole.
template <int Distance, int... Lane>
SCD_LANES_INLINE Lanes exchanged(Lanes value, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(value, value, (Lane ^ Distance)...);
}

template <int Distance = static_cast<int>(kLanes) / 2>
SCD_LANES_INLINE float sum_of(Lanes value) {
  value += exchanged<Distance>(value, LaneIndices());
  if constexpr (Distance == 1)
    return value[0];
  else
    return sum_of<Distance / 2>(value);
}

template <int Distance = static_cast<int>(kLanes) / 2>
SCD_LANES_INLINE float largest_of(Lanes value) {
  value = larger(value, exchanged<Distance>(value, LaneIndices()));
  if constexpr (Distance == 1)
    return value[0];
  else
    return largest_of<Distance / 2>(value);
}

// From vectors a and b, runs of 2 * Width lanes: the `Half` (0 lower, 1 upper) of a's run, then of b's.
template <int Width, int Half, int... Lane>
SCD_LANES_INLINE Lanes halves(Lanes a, Lanes b, std::integer_sequence<int, Lane...>) {
  constexpr int kRun = 2 * Width;
  constexpr int kFromB = static_cast<int>(kLanes);
  return __builtin_shufflevector(
      a, b, (Lane / kRun * kRun + Lane % Width + Half * Width + (Lane % kRun < Width ? 0 : kFromB))...);
}

// Lane i of the result is the sum over the lanes of vector i of kLanes vectors, which are overwritten.
template <int Width = static_cast<int>(kLanes) / 2>
SCD_LANES_INLINE Lanes sums_of(Lanes (&v)[kLanes]) {
  for (int i = 0; i < Width; ++i) {
    v[i] = halves<Width, 0>(v[i], v[i + Width], LaneIndices()) + halves<Width, 1>(v[i], v[i + Width], LaneIndices());
  }
  if constexpr (Width == 1)
    return v[0];
  else
    return sums_of<Width / 2>(v);
}

// e^x with a relative error below 2e-7 for x in [-87.3, 88.7]; 0 below, including minus infinity; e^88.7 above.
// x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite 1980); the polynomial is Cephes' expf.
SCD_LANES_INLINE Lanes exponential(Lanes x) {
  constexpr float kLowest = -87.33654f;
  constexpr float kHighest = 88.72283f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Lanes highest = broadcast(kHighest);
  const Lanes bounded = larger(x < highest ? x : highest, broadcast(kLowest));
  const Lanes shifted = bounded * 1.44269504f + kRounder;
  const Lanes n = shifted - kRounder;
  const Lanes r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  const IntLanes exponent = __builtin_convertvector(n, IntLanes);
  // Two factors, as 2^128 alone is not a float.
  const IntLanes half = exponent >> 1;
  const Lanes first = (Lanes)((half + 127) << 23);
  const Lanes second = (Lanes)((exponent - half + 127) << 23);
  return x < broadcast(kLowest) ? Lanes{} : p * first * second;
}

}  // namespace
}  // namespace scd::kernels::cpu
