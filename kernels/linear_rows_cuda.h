// Linear layers of few rows on CUDA: bounded by reading the weight once.
#pragma once

#include "kernels/matrix.h"

namespace scd::kernels::cuda {

// BF16 on both sides, up to 8 rows, rows of 16-byte pieces.
bool takes_linear_rows(const ConstMatrix& weight, const ConstMatrix& x);
void linear_rows(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, bool accumulate);

}  // namespace scd::kernels::cuda
