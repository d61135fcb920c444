#include "kernels/adamw_update.h"
#include "kernels/cuda_kernels.h"
#include "kernels/elementwise_cuda.cuh"

namespace scd::kernels::cuda {
namespace {

// A thread a column: batches are short.
__global__ void sum_rows_kernel(const float* m, int64_t stride, int64_t rows, int64_t columns, float* sum) {
  const int64_t column = int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (column >= columns) return;
  float total = 0.0f;
  for (int64_t row = 0; row < rows; ++row) total += m[row * stride + column];
  sum[column] = total;
}

}  // namespace

void silu_with_slope(ConstMatrix before, Matrix after, Matrix slope) {
  const auto* x = before.row<float>(0);
  auto *y = after.row<float>(0), *dy = slope.row<float>(0);
  const int64_t x_stride = before.row_stride, y_stride = after.row_stride, dy_stride = slope.row_stride;
  for_each(
      before.rows, before.columns,
      [=] __device__(int64_t row, int64_t column) {
        const float value = x[row * x_stride + column];
        const float sigmoid = 1.0f / (1.0f + expf(-value));
        y[row * y_stride + column] = value * sigmoid;
        dy[row * dy_stride + column] = sigmoid * (1.0f + value * (1.0f - sigmoid));
      },
      "silu_with_slope");
}

void multiply(Matrix m, ConstMatrix by) {
  auto* to = m.row<float>(0);
  const auto* from = by.row<float>(0);
  const int64_t to_stride = m.row_stride, from_stride = by.row_stride;
  for_each(
      m.rows, m.columns,
      [=] __device__(int64_t row, int64_t column) { to[row * to_stride + column] *= from[row * from_stride + column]; },
      "multiply");
}

void scaled_difference(ConstMatrix a, ConstMatrix b, float scale, Matrix out) {
  const auto *left = a.row<float>(0), *right = b.row<float>(0);
  auto* to = out.row<float>(0);
  const int64_t left_stride = a.row_stride, right_stride = b.row_stride, to_stride = out.row_stride;
  for_each(
      a.rows, a.columns,
      [=] __device__(int64_t row, int64_t column) {
        to[row * to_stride + column] = scale * (left[row * left_stride + column] - right[row * right_stride + column]);
      },
      "scaled_difference");
}

void sum_rows(ConstMatrix m, Matrix row) {
  const auto blocks = static_cast<unsigned>((m.columns + kElementThreads - 1) / kElementThreads);
  sum_rows_kernel<<<blocks, kElementThreads, 0, stream()>>>(m.row<float>(0), m.row_stride, m.rows, m.columns,
                                                            row.row<float>(0));
  check_launch("sum_rows");
}

void adamw(const AdamWState& state, const AdamWStep& step) {
  const AdamWFactors factors(step);
  auto *parameters = state.parameters.row<float>(0), *first = state.first.row<float>(0),
       *second = state.second.row<float>(0);
  const auto* gradient = state.gradient.row<float>(0);
  const int64_t stride = state.parameters.row_stride, gradient_stride = state.gradient.row_stride;
  const int64_t first_stride = state.first.row_stride, second_stride = state.second.row_stride;
  for_each(
      state.parameters.rows, state.parameters.columns,
      [=] __device__(int64_t row, int64_t column) {
        factors.update(parameters[row * stride + column], gradient[row * gradient_stride + column],
                       first[row * first_stride + column], second[row * second_stride + column]);
      },
      "adamw");
}

}  // namespace scd::kernels::cuda
