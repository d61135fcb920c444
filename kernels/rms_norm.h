// Root-mean-square layer normalisation (Zhang and Sennrich 2019, arXiv:1910.07467): y = x / rms(x) * weight.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matrix.h"

namespace scd::kernels {

// x [rows, n] F32; weight [n]; y [rows, n] F32 or BF16.
void rms_norm(ConstMatrix x, std::span<const float> weight, float epsilon, Matrix y);

// Each row over, or times, the root mean square of the same row of `by` (any width): out = x / rms(by). Inputs F32, out
// F32, which may be x, or BF16. The CPU sums in double and in order, so that every machine gets the same.
void divide_by_rms(ConstMatrix x, ConstMatrix by, Matrix out);
void multiply_by_rms(ConstMatrix x, ConstMatrix by, Matrix out);

// In place over every group of head_dim columns: the q/k norm of Qwen3. x [rows, heads * head_dim] F32.
void rms_norm_heads(Matrix x, int64_t head_dim, std::span<const float> weight, float epsilon);

}  // namespace scd::kernels
