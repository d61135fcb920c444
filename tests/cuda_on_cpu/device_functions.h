// Qualifiers and functions of device code.
#pragma once

#include <math.h>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/cuda_on_cpu/block.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

template <class A, class B>
constexpr auto min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B>
constexpr auto max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return *from;
}

inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __clz(int value) { return std::countl_zero(static_cast<unsigned>(value)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

// Rounded by itself: never one half of a fused multiply-add.
inline float rounded_alone(float value) {
  asm("" : "+x"(value));
  return value;
}
inline float __fadd_rn(float a, float b) { return rounded_alone(a + b); }
inline float __fmul_rn(float a, float b) { return rounded_alone(a * b); }
inline float __fdiv_rn(float a, float b) { return rounded_alone(a / b); }

// One thread runs at a time.
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <class T>
T atomicMin(T* at, T value) {
  const T before = *at;
  *at = min(before, value);
  return before;
}
template <class T>
T atomicMax(T* at, T value) {
  const T before = *at;
  *at = max(before, value);
  return before;
}

inline void __syncthreads() { scd::cuda_on_cpu::wait_for_block(); }
inline size_t __cvta_generic_to_shared(const void* memory) { return scd::cuda_on_cpu::shared_address(memory); }

namespace scd::cuda_on_cpu {

// A value for each lane from another lane; bytes of 0xff from one that is not there.
template <class T>
T exchanged(const char* name, uint32_t mask, T value, unsigned from) {
  struct Record {
    T value, result;
    unsigned from;
  };
  static const Meeting meeting{name, [](void* const* records, uint32_t here) {
                                 for (unsigned lane = 0; lane < 32; ++lane) {
                                   if ((here >> lane & 1) == 0) continue;
                                   auto* own = static_cast<Record*>(records[lane]);
                                   if (own->from < 32 && (here >> own->from & 1) != 0) {
                                     own->result = static_cast<const Record*>(records[own->from])->value;
                                   } else {
                                     std::memset(&own->result, 0xff, sizeof(T));
                                   }
                                 }
                               }};
  Record record{value, value, from};
  meet(meeting, mask, &record);
  return record.result;
}

// Of the lanes for which the predicate holds, and of those that were there.
struct Votes {
  uint32_t own, all, here;
};
inline Votes voted(uint32_t mask, bool predicate) {
  static const Meeting meeting{"a vote of lanes", [](void* const* records, uint32_t here) {
                                 uint32_t all = 0;
                                 for (unsigned lane = 0; lane < 32; ++lane) {
                                   if ((here >> lane & 1) != 0) all |= static_cast<Votes*>(records[lane])->own;
                                 }
                                 for (unsigned lane = 0; lane < 32; ++lane) {
                                   if ((here >> lane & 1) != 0) *static_cast<Votes*>(records[lane]) = {0, all, here};
                                 }
                               }};
  Votes votes{predicate ? 1u << lane() : 0, 0, 0};
  meet(meeting, mask, &votes);
  return votes;
}

}  // namespace scd::cuda_on_cpu

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return scd::cuda_on_cpu::exchanged("__shfl_xor_sync", mask, value, scd::cuda_on_cpu::lane() ^ lanes);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return scd::cuda_on_cpu::exchanged("__shfl_sync", mask, value, static_cast<unsigned>(lane) % 32);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes) {
  const unsigned own = scd::cuda_on_cpu::lane();
  return scd::cuda_on_cpu::exchanged("__shfl_up_sync", mask, value, own < lanes ? own : own - lanes);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate) { return scd::cuda_on_cpu::voted(mask, predicate).all; }
inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
inline bool __all_sync(unsigned mask, bool predicate) {
  const auto votes = scd::cuda_on_cpu::voted(mask, predicate);
  return votes.all == votes.here;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  static const scd::cuda_on_cpu::Meeting meeting{"__syncwarp", [](void* const*, uint32_t) {}};
  scd::cuda_on_cpu::meet(meeting, mask, nullptr);
}
