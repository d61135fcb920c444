// One row: a warp an output, its lanes read the weight's row in pieces of 16 bytes. More rows: the tensor cores, as
// plain arithmetic would read x from the first-level cache more often than it can give; a block takes 16 outputs, its
// warps share the inner dimension.
#include "kernels/linear_rows_cuda.h"

#include <algorithm>

#include "kernels/cuda_common.cuh"
#include "kernels/tensor_core.cuh"

namespace scd::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxRows = 32;
constexpr int kPiece = 8;          // BF16 values in 16 bytes
constexpr int kOutputs = 16;       // of a block on tensor cores
constexpr int kStep = 4 * kPiece;  // of the inner dimension, that the lanes of a row read at once

__device__ void unpack(uint4 bits, float (&to)[kPiece]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(words[i] << 16);
    to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

template <class Out>
__global__ void __launch_bounds__(32 * kWarps)
    one_row_kernel(const uint4* weight, int64_t outputs, int pieces, const uint4* x, Out* y, const float* bias,
                   bool accumulate) {
  const int64_t output = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (output >= outputs) return;
  const int lane = threadIdx.x % 32;
  const uint4* from = weight + output * pieces;
  float sum = 0.0f;
#pragma unroll 4
  for (int piece = lane; piece < pieces; piece += 32) {
    float w[kPiece], values[kPiece];
    unpack(__ldcs(from + piece), w);
    unpack(__ldg(x + piece), values);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) sum += w[i] * values[i];
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (lane > 0) return;
  if (bias != nullptr) sum += bias[output];
  store(accumulate ? to_float(y[output]) + sum : sum, y + output);
}

// The order of a sum is free, so a lane's four places in a fragment may be any four that x uses too: here neighbours,
// which come in one load.
template <int kTiles, class Out>
__global__ void __launch_bounds__(32 * kWarps)
    rows_kernel(const __nv_bfloat16* weight, int outputs, int inner, const __nv_bfloat16* x, int64_t x_stride, int rows,
                Out* y, int64_t y_stride, const float* bias, bool accumulate) {
  __shared__ float partial[kWarps][kOutputs][kTiles * 8 + 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = lane / 4, quarter = lane % 4;
  const int first = blockIdx.x * kOutputs;
  const int64_t own = min(first + group, outputs - 1), below = min(first + group + 8, outputs - 1);
  const __nv_bfloat16* upper = weight + own * inner + quarter * kPiece;
  const __nv_bfloat16* lower = weight + below * inner + quarter * kPiece;
  const __nv_bfloat16* rows_of_tile[kTiles];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    rows_of_tile[tile] = x + min(tile * 8 + group, rows - 1) * x_stride + quarter * kPiece;
  }
  float sums[kTiles][4] = {};
#pragma unroll 4
  for (int k = warp * kStep; k < inner; k += kWarps * kStep) {
    const uint4 a = __ldcs(reinterpret_cast<const uint4*>(upper + k));
    const uint4 b = __ldcs(reinterpret_cast<const uint4*>(lower + k));
    const uint32_t first_half[4] = {a.x, b.x, a.y, b.y}, second_half[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const uint4 values = __ldg(reinterpret_cast<const uint4*>(rows_of_tile[tile] + k));
      multiply(sums[tile], first_half, values.x, values.y);
      multiply(sums[tile], second_half, values.z, values.w);
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) partial[warp][group + i / 2 * 8][tile * 8 + quarter * 2 + i % 2] = sums[tile][i];
  }
  __syncthreads();
  for (int index = threadIdx.x; index < kOutputs * rows; index += 32 * kWarps) {
    const int output = index % kOutputs, row = index / kOutputs;
    if (first + output >= outputs) continue;
    float sum = bias == nullptr ? 0.0f : bias[first + output];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partial[w][output][row];
    Out* to = y + row * y_stride + first + output;
    store(accumulate ? to_float(*to) + sum : sum, to);
  }
}

template <int kTiles, class Out>
void launch_rows(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, const float* bias, bool accumulate) {
  const auto grid = static_cast<unsigned>((weight.rows + kOutputs - 1) / kOutputs);
  rows_kernel<kTiles, Out><<<grid, 32 * kWarps, 0, stream()>>>(
      static_cast<const __nv_bfloat16*>(weight.data), static_cast<int>(weight.rows), static_cast<int>(weight.columns),
      static_cast<const __nv_bfloat16*>(x.data), x.row_stride, static_cast<int>(x.rows), static_cast<Out*>(y.data),
      y.row_stride, bias, accumulate);
}

template <class Out>
void launch(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, const float* bias, bool accumulate) {
  if (x.rows == 1) {
    const auto grid = static_cast<unsigned>((weight.rows + kWarps - 1) / kWarps);
    one_row_kernel<<<grid, 32 * kWarps, 0, stream()>>>(
        static_cast<const uint4*>(weight.data), weight.rows, static_cast<int>(weight.columns / kPiece),
        static_cast<const uint4*>(x.data), static_cast<Out*>(y.data), bias, accumulate);
  } else if (x.rows <= 8) {
    launch_rows<1, Out>(weight, x, y, bias, accumulate);
  } else if (x.rows <= 16) {
    launch_rows<2, Out>(weight, x, y, bias, accumulate);
  } else {
    launch_rows<4, Out>(weight, x, y, bias, accumulate);
  }
  check_launch("a linear layer of few rows");
}

}  // namespace

bool takes_linear_rows(const ConstMatrix& weight, const ConstMatrix& x) {
  const int64_t piece = x.rows == 1 ? kPiece : kStep;
  return weight.dtype == DType::kBF16 && x.dtype == DType::kBF16 && x.rows <= kMaxRows && x.columns % piece == 0 &&
         x.row_stride % kPiece == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

void linear_rows(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, std::span<const float> bias,
                 bool accumulate) {
  const float* values = bias.empty() ? nullptr : bias.data();
  if (y.dtype == DType::kF32) {
    launch<float>(weight, x, y, values, accumulate);
  } else {
    launch<__nv_bfloat16>(weight, x, y, values, accumulate);
  }
}

}  // namespace scd::kernels::cuda
