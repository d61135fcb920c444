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

// How sums reach y, decided once a call: the innermost loops must not ask again.
struct SumWriter {
  const float* bias;  // null: none
  void* y;
  int64_t y_stride;
  int64_t columns;
  bool y_is_bf16;
  bool add_to_y;

  SumWriter(const PanelProduct& product, bool first_part)
      : bias(first_part ? product.weights.bias : nullptr),
        y(product.y.data),
        y_stride(product.y.row_stride),
        columns(product.weights.out),
        y_is_bf16(product.y.dtype == DType::kBF16),
        add_to_y(product.accumulate || !first_part) {}

  // y[row, column .. column + 16); columns past the matrix are left out.
  void write(int64_t row, int64_t column, __m512 sums) const {
    const __mmask16 mask = lane_mask(columns - column);
    if (bias != nullptr) sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, bias + column));
    if (y_is_bf16) {
      uint16_t* to = static_cast<uint16_t*>(y) + row * y_stride + column;
      _mm256_mask_storeu_epi16(to, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sums)));
      return;
    }
    float* to = static_cast<float*>(y) + row * y_stride + column;
    if (add_to_y) sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, to));
    _mm512_mask_storeu_ps(to, mask, sums);
  }
};

// A 16 x 16 block of sums, [16][16] and aligned, into rows [row, row + rows) of y.
inline void write_tile(const SumWriter& writer, int64_t row, int64_t rows, int64_t column, const float* sums) {
  if (column >= writer.columns) return;
  const bool plain = !writer.y_is_bf16 && writer.bias == nullptr && column + 16 <= writer.columns;
  float* to = static_cast<float*>(writer.y) + row * writer.y_stride + column;
  if (plain && !writer.add_to_y) {
    for (int64_t r = 0; r < rows; ++r) _mm512_storeu_ps(to + r * writer.y_stride, _mm512_load_ps(sums + r * 16));
  } else if (plain) {
    for (int64_t r = 0; r < rows; ++r) {
      float* y = to + r * writer.y_stride;
      _mm512_storeu_ps(y, _mm512_add_ps(_mm512_loadu_ps(y), _mm512_load_ps(sums + r * 16)));
    }
  } else {
    for (int64_t r = 0; r < rows; ++r) writer.write(row + r, column, _mm512_load_ps(sums + r * 16));
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
