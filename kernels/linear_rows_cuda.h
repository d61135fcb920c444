// Linear layers of few rows on CUDA: bounded by reading the weight once.
#pragma once

#include <span>

#include "kernels/matrix.h"

namespace scd::kernels::cuda {

// BF16 on both sides, up to 32 rows, an inner dimension of a multiple of 32 (8 for one row).
bool takes_linear_rows(const ConstMatrix& weight, const ConstMatrix& x);
// bias: empty, or of every output, on the device.
void linear_rows(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, std::span<const float> bias,
                 bool accumulate);

}  // namespace scd::kernels::cuda
