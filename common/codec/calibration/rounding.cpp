#include "common/codec/calibration/rounding.h"

#include <algorithm>
#include <cmath>

namespace scd {

void round_to_bf16(std::vector<float>& values) {
  for (float& value : values) value = kernels::to_float(kernels::to_bfloat16(value));
}

void round_columns_to_int8(DenseMatrix& matrix) {
  for (int64_t column = 0; column < matrix.columns; ++column) {
    float largest = 0;
    for (int64_t row = 0; row < matrix.rows; ++row) largest = std::max(largest, std::abs(matrix.at(row, column)));
    // A scale of 8 bits times an integer of 8 is exact, and the largest value stays at 127.
    const float scale = kernels::to_float(kernels::to_bfloat16(largest / 127.0f));
    if (scale == 0) continue;
    for (int64_t row = 0; row < matrix.rows; ++row) {
      float& value = matrix.at(row, column);
      value = std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f) * scale;
    }
  }
}

}  // namespace scd
