// FP16 numbers: storage and the conversion that kernels use.
#pragma once

#include <immintrin.h>

#include <cstdint>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) { return _cvtsh_ss(value.bits); }
