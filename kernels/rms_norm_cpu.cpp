// Memory-bound: one read of the row for the sum of squares, one (from cache) for the output.
#include <cmath>

#include "kernels/cpu_kernels.h"
#include "kernels/number.h"
#include "kernels/rms_limits.h"

namespace scd::kernels::cpu {
namespace {

// Sixteen partial sums: short chains for the rounding error, and a vector register for the compiler.
float sum_of_squares(const float* x, int64_t n) {
  constexpr int64_t kLanes = 16;
  float partial[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) partial[lane] += x[i + lane] * x[i + lane];
  }
  double sum = 0.0;
  for (float value : partial) sum += value;
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return static_cast<float>(sum);
}

float inverse_rms(const float* x, int64_t n, float epsilon) {
  return 1.0f / std::sqrt(sum_of_squares(x, n) / static_cast<float>(n) + epsilon);
}

template <class Out>
void norm_row(const float* x, const float* weight, int64_t n, float epsilon, Out* y) {
  const float scale = inverse_rms(x, n, epsilon);
  for (int64_t i = 0; i < n; ++i) store_float(x[i] * scale * weight[i], y[i]);
}

void norm_row(const float* x, const float* weight, float epsilon, const Matrix& y, int64_t r) {
  if (y.dtype == DType::kBF16) {
    norm_row(x, weight, y.columns, epsilon, y.row<BFloat16>(r));
  } else {
    norm_row(x, weight, y.columns, epsilon, y.row<float>(r));
  }
}

}  // namespace

void rms_norm(ConstMatrix x, std::span<const float> weight, float epsilon, Matrix y) {
#pragma omp parallel for schedule(static) if (x.rows > 8)
  for (int64_t r = 0; r < x.rows; ++r) norm_row(x.row<float>(r), weight.data(), epsilon, y, r);
}

namespace {

float root_mean_square(const float* row, int64_t count) {
  constexpr int64_t kLanes = 16;
  double partial[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) partial[lane] += double{row[c + lane]} * row[c + lane];
  }
  double sum = 0;
  for (double value : partial) sum += value;
  for (; c < count; ++c) sum += double{row[c]} * row[c];
  return static_cast<float>(std::sqrt(sum / static_cast<double>(count) + kSmallestSquare));
}

template <class Out>
void scale_row(const float* from, float scale, int64_t n, Out* to) {
  for (int64_t i = 0; i < n; ++i) store_float(from[i] * scale, to[i]);
}

void scale_rows(const ConstMatrix& x, const ConstMatrix& by, const Matrix& out, bool divide) {
#pragma omp parallel for schedule(static) if (x.rows > 8)
  for (int64_t r = 0; r < x.rows; ++r) {
    const float rms = root_mean_square(by.row<float>(r), by.columns);
    const float scale = divide ? 1.0f / rms : rms;
    if (out.dtype == DType::kBF16) {
      scale_row(x.row<float>(r), scale, x.columns, out.row<BFloat16>(r));
    } else {
      scale_row(x.row<float>(r), scale, x.columns, out.row<float>(r));
    }
  }
}

}  // namespace

void divide_by_rms(ConstMatrix x, ConstMatrix by, Matrix out) { scale_rows(x, by, out, true); }
void multiply_by_rms(ConstMatrix x, ConstMatrix by, Matrix out) { scale_rows(x, by, out, false); }

void rms_norm_heads(Matrix x, int64_t head_dim, std::span<const float> weight, float epsilon) {
#pragma omp parallel for schedule(static) if (x.rows > 8)
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t first = 0; first < x.columns; first += head_dim) {
      float* head = x.row<float>(r) + first;
      norm_row(head, weight.data(), head_dim, epsilon, head);
    }
  }
}

}  // namespace scd::kernels::cpu
