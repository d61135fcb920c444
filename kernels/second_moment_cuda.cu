// A triangle in FP32 by cuBLAS, then added: bounded by the product for many rows.
#include "kernels/cuda_blas.h"
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/second_moment.h"

namespace scd::kernels::cuda {
namespace {

constexpr int64_t kBlockRows = 2048;
constexpr int kTileRows = 32, kTileColumns = 8;

// lower: column-major.
__global__ void add_triangle_kernel(const float* lower, int64_t dims, double* triangle) {
  const int64_t row = int64_t{blockIdx.x} * kTileRows + threadIdx.x;
  const int64_t column = int64_t{blockIdx.y} * kTileColumns + threadIdx.y;
  if (row >= dims || column > row) return;
  triangle[triangle_column(column, dims) + row - column] += lower[column * dims + row];
}

unsigned blocks_of(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

}  // namespace

void add_second_moment(ConstMatrix rows, double* triangle) {
  const int64_t dims = rows.columns;
  auto* lower =
      reinterpret_cast<float*>(device_scratch(Slot::kMoment, static_cast<size_t>(dims * dims) * sizeof(float)));
  const float one = 1.0f, zero = 0.0f;
  const int64_t stride = rows.rows > 1 ? rows.row_stride : dims;
  for (int64_t first = 0; first < rows.rows; first += kBlockRows) {
    const int64_t left = rows.rows - first, count = left < kBlockRows ? left : kBlockRows;
    // Row-major rows are a column-major matrix [dims, count].
    check_blas(blas().ssyrk(blas_handle(), CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, static_cast<int>(dims),
                            static_cast<int>(count), &one, rows.row<float>(first), static_cast<int>(stride), &zero,
                            lower, static_cast<int>(dims)),
               "a second moment");
    add_triangle_kernel<<<dim3(blocks_of(dims, kTileRows), blocks_of(dims, kTileColumns)),
                          dim3(kTileRows, kTileColumns), 0, stream()>>>(lower, dims, triangle);
    check_launch("add_second_moment");
  }
}

}  // namespace scd::kernels::cuda
