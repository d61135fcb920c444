#include "common/codec/calibration/rounding.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace scd {

void round_to_bf16(std::vector<float>& values) {
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < values.size(); ++i) values[i] = kernels::to_float(kernels::to_bfloat16(values[i]));
}

void round_columns_to_int8(DenseMatrix& matrix) {
  constexpr int64_t kColumns = 64;  // that a thread takes
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < matrix.columns; first += kColumns) {
    const auto columns = static_cast<size_t>(std::min(kColumns, matrix.columns - first));
    std::array<float, kColumns> scales{};  // first the largest magnitudes
    for (int64_t row = 0; row < matrix.rows; ++row) {
      const float* values = matrix.view().row<float>(row) + first;
      for (size_t column = 0; column < columns; ++column) {
        scales[column] = std::max(scales[column], std::abs(values[column]));
      }
    }
    // A scale of 8 bits times an integer of 8 is exact, and the largest value stays at 127.
    for (float& scale : scales) scale = kernels::to_float(kernels::to_bfloat16(scale / 127.0f));
    for (int64_t row = 0; row < matrix.rows; ++row) {
      float* values = matrix.view().row<float>(row) + first;
      for (size_t column = 0; column < columns; ++column) {
        const float scale = scales[column];
        if (scale > 0) values[column] = std::clamp(std::nearbyint(values[column] / scale), -127.0f, 127.0f) * scale;
      }
    }
  }
}

}  // namespace scd
