// A warp an output: its lanes read the weight's row in pieces of 16 bytes and multiply them with every row of x, which
// stays in the first-level cache.
#include "kernels/linear_rows_cuda.h"

#include "kernels/cuda_common.cuh"

namespace scd::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxRows = 8;
constexpr int kPiece = 8;  // BF16 values in 16 bytes

__device__ void unpack(uint4 bits, float (&to)[kPiece]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(words[i] << 16);
    to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

template <int kRows, class Out>
__global__ void __launch_bounds__(32 * kWarps)
    rows_kernel(const uint4* weight, int64_t outputs, int pieces, const uint4* x, int64_t x_pieces, Out* y,
                int64_t y_stride, bool accumulate) {
  const int64_t output = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (output >= outputs) return;
  const int lane = threadIdx.x % 32;
  const uint4* from = weight + output * pieces;
  float sums[kRows] = {};
#pragma unroll 4
  for (int piece = lane; piece < pieces; piece += 32) {
    float w[kPiece];
    unpack(__ldcs(from + piece), w);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      float values[kPiece];
      unpack(__ldg(x + row * x_pieces + piece), values);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) sums[row] += w[i] * values[i];
    }
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sums[row] += __shfl_xor_sync(0xffffffffu, sums[row], offset);
    if (lane == row) {
      Out* to = y + row * y_stride + output;
      store(accumulate ? to_float(*to) + sums[row] : sums[row], to);
    }
  }
}

template <int kRows, class Out>
void launch(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, bool accumulate) {
  const auto grid = static_cast<unsigned>((weight.rows + kWarps - 1) / kWarps);
  rows_kernel<kRows, Out><<<grid, 32 * kWarps, 0, stream()>>>(
      static_cast<const uint4*>(weight.data), weight.rows, static_cast<int>(weight.columns / kPiece),
      static_cast<const uint4*>(x.data), x.row_stride / kPiece, static_cast<Out*>(y.data), y.row_stride, accumulate);
  check_launch("a linear layer of few rows");
}

template <class Out>
void launch(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, bool accumulate) {
  switch (x.rows) {
    case 1: return launch<1, Out>(weight, x, y, accumulate);
    case 2: return launch<2, Out>(weight, x, y, accumulate);
    case 3: return launch<3, Out>(weight, x, y, accumulate);
    case 4: return launch<4, Out>(weight, x, y, accumulate);
    case 5: return launch<5, Out>(weight, x, y, accumulate);
    case 6: return launch<6, Out>(weight, x, y, accumulate);
    case 7: return launch<7, Out>(weight, x, y, accumulate);
    default: return launch<8, Out>(weight, x, y, accumulate);
  }
}

}  // namespace

bool takes_linear_rows(const ConstMatrix& weight, const ConstMatrix& x) {
  return weight.dtype == DType::kBF16 && x.dtype == DType::kBF16 && x.rows <= kMaxRows && x.columns % kPiece == 0 &&
         x.row_stride % kPiece == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

void linear_rows(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, bool accumulate) {
  if (y.dtype == DType::kF32) {
    launch<float>(weight, x, y, accumulate);
  } else {
    launch<__nv_bfloat16>(weight, x, y, accumulate);
  }
}

}  // namespace scd::kernels::cuda
