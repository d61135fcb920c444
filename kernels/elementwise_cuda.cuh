// A thread for each element of a matrix.
#pragma once

#include "kernels/cuda_common.cuh"

namespace scd::kernels::cuda {

constexpr int kElementThreads = 256;

// One element per thread of a [rows, columns] grid: f(row, column).
template <class F>
__global__ void for_each_kernel(int64_t rows, int64_t columns, F f) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) f(row, column);
}

template <class F>
void for_each(int64_t rows, int64_t columns, F f, const char* op) {
  const dim3 grid(static_cast<unsigned>((columns + kElementThreads - 1) / kElementThreads),
                  static_cast<unsigned>(rows < kMaxGridY ? rows : kMaxGridY));
  for_each_kernel<<<grid, kElementThreads, 0, stream()>>>(rows, columns, f);
  check_launch(op);
}

}  // namespace scd::kernels::cuda
