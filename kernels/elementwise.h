// Small memory-bound ops of the forward pass.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matrix.h"
#include "kernels/sequences.h"

namespace scd::kernels {

// table [vocab, hidden] F32 or BF16; ids in [0, vocab) checked; out [ids, hidden] F32.
void embedding(ConstMatrix table, Indices ids, Matrix out);

// SwiGLU (Shazeer 2020, arXiv:2002.05202): out = silu(gate) * up. gate_up [rows, 2 n] F32 (on CUDA F32 or BF16), gate
// first; out [rows, n] F32 or BF16.
void silu_mul(ConstMatrix gate_up, Matrix out);

// out = in in another dtype (F32, BF16, F16 in; F32, BF16 out). Same shape.
void convert(ConstMatrix in, Matrix out);

// Every element of row r = values[r]; m F32, values [rows] on its device.
void fill_rows(Matrix m, std::span<const float> values);

// m += bias in every row; m F32 or BF16 on the device of bias [columns].
void add_bias(Matrix m, std::span<const float> bias);

// Normally distributed numbers of mean 0 from a counter and the seed alone (splitmix64, Box and Muller 1958); the CPU's
// and CUDA's agree to rounding. For weights of made-up models.
void fill_normal(Matrix m, uint64_t seed, float deviation);

}  // namespace scd::kernels
