// BF16 weights as every BF16 path reads them: one copy, panels of 32 output columns, pairs of inputs side by side:
// [panels][padded inputs / 2][32][2], zero-padded. oneDNN calls it BA16a32b2a; a matrix-vector product streams it
// linearly; AMX tiles are [16 pairs][16 columns][2] pieces of it.
#pragma once

#include <cstdint>

#include "kernels/matrix.h"

namespace scd::kernels::cpu {

inline constexpr int64_t kPanelColumns = 32;
inline constexpr int64_t kInputBlock = 32;

struct PanelWeights {
  const uint16_t* data = nullptr;
  const float* bias = nullptr;  // [out] or null
  int64_t packed_in = 0;        // inputs that a panel holds
  int64_t in = 0;               // inputs of the product: the first of them
  int64_t out = 0;

  static int64_t padded(int64_t inputs) { return (inputs + kInputBlock - 1) / kInputBlock * kInputBlock; }
  int64_t padded_in() const { return padded(in); }  // the product's; x has zeros there
  int64_t panels() const { return (out + kPanelColumns - 1) / kPanelColumns; }
  int64_t panel_elements() const { return padded(packed_in) * kPanelColumns; }
  const uint16_t* panel(int64_t index) const { return data + index * panel_elements(); }
};

// Multiplications below which one thread is faster than waking the others.
inline constexpr int64_t kSerialMultiplications = int64_t{1} << 18;

// y = x W^T + bias, or y += with accumulate. x F32 or BF16, y F32 or BF16.
struct PanelProduct {
  PanelWeights weights;
  ConstMatrix x;
  Matrix y;
  bool accumulate = false;

  bool worth_threads() const { return x.rows * weights.in * weights.out > kSerialMultiplications; }
};

// Up to this many rows the product is bounded by memory and AVX512-BF16 does better than tiles.
inline constexpr int64_t kMatrixVectorRows = 4;
void multiply_avx512_bf16(const PanelProduct& product);
void multiply_amx(const PanelProduct& product);

}  // namespace scd::kernels::cpu
