// Small memory-bound ops of the forward pass.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matrix.h"

namespace scd::kernels {

// table [vocab, hidden] F32 or BF16; ids in [0, vocab) checked; out [ids, hidden] F32.
void embedding(ConstMatrix table, std::span<const int32_t> ids, Matrix out);

// SwiGLU (Shazeer 2020, arXiv:2002.05202): out = silu(gate) * up. gate_up [rows, 2 n] F32, gate first; out [rows, n]
// F32 or BF16.
void silu_mul(ConstMatrix gate_up, Matrix out);

// out = in in another dtype (F32, BF16, F16 in; F32, BF16 out). Same shape.
void convert(ConstMatrix in, Matrix out);

// residual += delta, F32, same shape.
void add(Matrix residual, ConstMatrix delta);

}  // namespace scd::kernels
