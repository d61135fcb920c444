// X^T X of many rows, summed in double: the covariances that calibration is made of. On CUDA a symmetric product of
// cuBLAS in FP32 (no TF32). What bounds it: the FP32 peak.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/matrix.h"

namespace scd::kernels {

// Of a symmetric matrix only what lies on and below the diagonal is kept, column after column: element (r, c), r >= c,
// at triangle_column(c, dims) + r - c.
SCD_HOST_DEVICE constexpr int64_t triangle_column(int64_t column, int64_t dims) {
  return column * dims - column * (column - 1) / 2;
}
SCD_HOST_DEVICE constexpr int64_t triangle_size(int64_t dims) { return triangle_column(dims, dims); }

// triangle [triangle_size(dims)] on the device of rows [n, dims] F32: += rows^T rows. Rows are summed in blocks in
// FP32, blocks in double: the error stays that of one block.
void add_second_moment(ConstMatrix rows, double* triangle);

}  // namespace scd::kernels
