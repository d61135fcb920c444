#include <algorithm>

#include "kernels/cpu_kernels.h"
#include "kernels/grow_buffer.h"
#include "kernels/linear.h"
#include "kernels/second_moment.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kBlockRows = 1024;

}  // namespace

void add_second_moment(ConstMatrix rows, double* triangle) {
  thread_local GrowBuffer memory;
  const int64_t dims = rows.columns;
  const Matrix product = memory.matrix(dims, dims);
  for (int64_t first = 0; first < rows.rows; first += kBlockRows) {
    ConstMatrix block = rows;
    block.data = rows.row<float>(first);
    block.rows = std::min(kBlockRows, rows.rows - first);
    kernels::gemm_f32({.a = block, .b = block, .c = product, .transpose_a = true});
#pragma omp parallel for schedule(static) if (dims >= 256)
    for (int64_t column = 0; column < dims; ++column) {
      const float* from = product.row<float>(column) + column;
      double* to = triangle + triangle_column(column, dims);
      for (int64_t i = 0; i < dims - column; ++i) to[i] += from[i];
    }
  }
}

}  // namespace scd::kernels::cpu
