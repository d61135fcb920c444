// Products with weights as they come, [out, in] row-major in F32 or BF16, multiplied in F32: the FP32 path, and BF16
// weights on a CPU that cannot multiply BF16.
#pragma once

#include "kernels/linear.h"

namespace scd::kernels::cpu {

struct RowProduct {
  ConstMatrix weight;           // [out, in] F32 or BF16
  const float* bias = nullptr;  // [out] or null
  ConstMatrix x;                // [rows, in] F32
  Matrix y;                     // [rows, out] F32
  bool accumulate = false;
};

void multiply_rows(const RowProduct& product);

// c = op(a) op(b) + beta c by blocks that depend on the shapes alone: the same bits for any number of threads.
void gemm_f32(const GemmArgs& args);

}  // namespace scd::kernels::cpu
