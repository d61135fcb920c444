// What the AVX-512 linear kernels share. Everything here has internal linkage: it must never be merged with code
// compiled for another instruction set.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "kernels/linear_panels.h"

namespace scd::kernels::cpu {
namespace {

inline __mmask16 lane_mask(int64_t lanes) {
  return static_cast<__mmask16>(lanes >= 16 ? 0xffff : (1u << (lanes < 0 ? 0 : lanes)) - 1u);
}

// y[row, column .. column + 16) from a vector of sums; columns past the matrix are left out.
inline void store_sums(const PanelProduct& product, bool first_part, int64_t row, int64_t column, __m512 sums) {
  const __mmask16 mask = lane_mask(product.weights.out - column);
  if (mask == 0) return;
  if (first_part && product.weights.bias != nullptr) {
    sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, product.weights.bias + column));
  }
  if (product.y.dtype == DType::kF32) {
    float* to = product.y.row<float>(row) + column;
    if (product.accumulate || !first_part) sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, to));
    _mm512_mask_storeu_ps(to, mask, sums);
  } else {
    uint16_t* to = product.y.row<uint16_t>(row) + column;
    _mm256_mask_storeu_epi16(to, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sums)));
  }
}

// Thirty-two inputs of a row as BF16, zeros past the end.
inline __m512i load_bf16(const ConstMatrix& x, int64_t row, int64_t column) {
  const int64_t left = x.columns - column;
  if (x.dtype == DType::kBF16) {
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1u;
    return _mm512_maskz_loadu_epi16(mask, x.row<uint16_t>(row) + column);
  }
  const float* from = x.row<float>(row) + column;
  const __m512 low = _mm512_maskz_loadu_ps(lane_mask(left), from);
  const __m512 high = _mm512_maskz_loadu_ps(lane_mask(left - 16), from + 16);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

}  // namespace
}  // namespace scd::kernels::cpu
