// A triangle in FP32 by cuBLAS, then added to both halves of the sum: bounded by the product for many rows.
#include "kernels/cuda_blas.h"
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"

namespace scd::kernels::cuda {
namespace {

constexpr int64_t kBlockRows = 8192;
constexpr int kTileRows = 32, kTileColumns = 8;

// lower: column-major, of which elements on and below the diagonal count.
__global__ void add_symmetric_kernel(const float* lower, int64_t dims, double* sum) {
  const int64_t row = int64_t{blockIdx.x} * kTileRows + threadIdx.x;
  const int64_t column = int64_t{blockIdx.y} * kTileColumns + threadIdx.y;
  if (row >= dims || column >= dims) return;
  const int64_t below = row > column ? row : column, left = row > column ? column : row;
  sum[column * dims + row] += lower[left * dims + below];
}

unsigned blocks_of(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

}  // namespace

void add_second_moment(ConstMatrix rows, double* sum) {
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
    add_symmetric_kernel<<<dim3(blocks_of(dims, kTileRows), blocks_of(dims, kTileColumns)),
                           dim3(kTileRows, kTileColumns), 0, stream()>>>(lower, dims, sum);
    check_launch("add_second_moment");
  }
}

}  // namespace scd::kernels::cuda
