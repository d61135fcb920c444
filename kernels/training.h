// What training a small network needs besides products (gemm_f32): the activation and its slope, the loss's gradient,
// sums over a batch, and AdamW. All F32, all on one device. Bounded by memory; launches on CUDA, as batches are small.
#pragma once

#include <cstdint>

#include "kernels/matrix.h"

namespace scd::kernels {

// after = silu(before), slope = its derivative there. All of one shape; dense.
void silu_with_slope(ConstMatrix before, Matrix after, Matrix slope);

// m *= by, element by element.
void multiply(Matrix m, ConstMatrix by);

// out = scale * (a - b); out may be a.
void scaled_difference(ConstMatrix a, ConstMatrix b, float scale, Matrix out);

// row [1, columns] = the sum over the rows of m, from first to last.
void sum_rows(ConstMatrix m, Matrix row);

// AdamW with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), one step of all parameters.
struct AdamWStep {
  float learning_rate = 0;
  float weight_decay = 0;
  int64_t step = 1;  // from 1 on
};
// first and second: running means of gradients and of their squares, zero before the first step.
struct AdamWState {
  Matrix parameters;
  ConstMatrix gradient;
  Matrix first;
  Matrix second;
};
void adamw(const AdamWState& state, const AdamWStep& step);

}  // namespace scd::kernels
