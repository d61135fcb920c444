#include <algorithm>
#include <cmath>

#include "kernels/adamw_update.h"
#include "kernels/cpu_kernels.h"

namespace scd::kernels::cpu {

void silu_with_slope(ConstMatrix before, Matrix after, Matrix slope) {
  for (int64_t r = 0; r < before.rows; ++r) {
    const float* x = before.row<float>(r);
    float *y = after.row<float>(r), *dy = slope.row<float>(r);
    for (int64_t c = 0; c < before.columns; ++c) {
      const float sigmoid = 1.0f / (1.0f + std::exp(-x[c]));
      y[c] = x[c] * sigmoid;
      dy[c] = sigmoid * (1.0f + x[c] * (1.0f - sigmoid));
    }
  }
}

void multiply(Matrix m, ConstMatrix by) {
  for (int64_t r = 0; r < m.rows; ++r) {
    float* to = m.row<float>(r);
    const float* from = by.row<float>(r);
    for (int64_t c = 0; c < m.columns; ++c) to[c] *= from[c];
  }
}

void scaled_difference(ConstMatrix a, ConstMatrix b, float scale, Matrix out) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float *left = a.row<float>(r), *right = b.row<float>(r);
    float* to = out.row<float>(r);
    for (int64_t c = 0; c < a.columns; ++c) to[c] = scale * (left[c] - right[c]);
  }
}

void sum_rows(ConstMatrix m, Matrix row) {
  float* sum = row.row<float>(0);
  std::fill_n(sum, m.columns, 0.0f);
  for (int64_t r = 0; r < m.rows; ++r) {
    const float* from = m.row<float>(r);
    for (int64_t c = 0; c < m.columns; ++c) sum[c] += from[c];
  }
}

void adamw(const AdamWState& state, const AdamWStep& step) {
  const AdamWFactors factors(step);
  for (int64_t r = 0; r < state.parameters.rows; ++r) {
    float *parameters = state.parameters.row<float>(r), *first = state.first.row<float>(r),
          *second = state.second.row<float>(r);
    const float* gradient = state.gradient.row<float>(r);
    for (int64_t c = 0; c < state.parameters.columns; ++c) {
      factors.update(parameters[c], gradient[c], first[c], second[c]);
    }
  }
}

}  // namespace scd::kernels::cpu
