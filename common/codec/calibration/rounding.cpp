#include "common/codec/calibration/rounding.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace scd {

void round_to_bf16(std::vector<float>& values) {
  for (float& value : values) value = kernels::to_float(kernels::to_bfloat16(value));
}

void round_columns_to_int8(DenseMatrix& matrix) {
  std::vector<float> scales(static_cast<size_t>(matrix.columns));  // first the largest magnitudes
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const float* values = matrix.view().row<float>(row);
    for (size_t column = 0; column < scales.size(); ++column) {
      scales[column] = std::max(scales[column], std::abs(values[column]));
    }
  }
  // A scale of 8 bits times an integer of 8 is exact, and the largest value stays at 127.
  for (float& scale : scales) scale = kernels::to_float(kernels::to_bfloat16(scale / 127.0f));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    float* values = matrix.view().row<float>(row);
    for (size_t column = 0; column < scales.size(); ++column) {
      const float scale = scales[column];
      if (scale > 0) values[column] = std::clamp(std::nearbyint(values[column] / scale), -127.0f, 127.0f) * scale;
    }
  }
}

}  // namespace scd
