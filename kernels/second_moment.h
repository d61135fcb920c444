// X^T X of many rows, summed in double: the covariances that calibration is made of. On CUDA a symmetric product of
// cuBLAS in FP32 (no TF32). What bounds it: the FP32 peak.
#pragma once

#include "kernels/matrix.h"

namespace scd::kernels {

// sum [dims, dims] on the device of rows [n, dims] F32: += rows^T rows. Rows are summed in blocks in FP32, blocks in
// double: the error stays that of one block.
void add_second_moment(ConstMatrix rows, double* sum);

}  // namespace scd::kernels
