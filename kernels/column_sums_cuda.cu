// A warp's lanes are neighbouring columns; the warps of a block share the rows.
#include <vector>

#include "kernels/column_sums.h"
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kColumns = 32, kWarps = 32;

// out [2, columns]: sums, then squares.
__global__ void column_sums_kernel(const float* m, int64_t stride, int64_t rows, int64_t columns, double* out) {
  __shared__ double sums[kWarps][kColumns];
  __shared__ double squares[kWarps][kColumns];
  const int64_t column = int64_t{blockIdx.x} * kColumns + threadIdx.x;
  double sum = 0.0, square = 0.0;
  for (int64_t row = threadIdx.y; column < columns && row < rows; row += kWarps) {
    const double value = m[row * stride + column];
    sum += value;
    square += value * value;
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  squares[threadIdx.y][threadIdx.x] = square;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int warp = 1; warp < kWarps; ++warp) {
    sum += sums[warp][threadIdx.x];
    square += squares[warp][threadIdx.x];
  }
  out[column] = sum;
  out[columns + column] = square;
}

}  // namespace

void column_sums(ConstMatrix m, std::span<double> sums, std::span<double> squares) {
  const size_t bytes = 2 * sums.size_bytes();
  auto* out = reinterpret_cast<double*>(device_scratch(Slot::kColumnSums, bytes));
  const auto blocks = static_cast<unsigned>((m.columns + kColumns - 1) / kColumns);
  column_sums_kernel<<<blocks, dim3(kColumns, kWarps), 0, stream()>>>(m.row<float>(0), m.row_stride, m.rows, m.columns,
                                                                      out);
  check_launch("column_sums");
  std::vector<double> both(2 * sums.size());
  check(cudaMemcpyAsync(both.data(), out, bytes, cudaMemcpyDeviceToHost, stream()), "column_sums");
  synchronize();
  std::copy_n(both.begin(), sums.size(), sums.begin());
  std::copy_n(both.begin() + static_cast<std::ptrdiff_t>(sums.size()), sums.size(), squares.begin());
}

}  // namespace scd::kernels::cuda
