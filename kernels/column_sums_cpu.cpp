#include "kernels/cpu_kernels.h"

namespace scd::kernels::cpu {

void column_sums(ConstMatrix m, std::span<double> sums, std::span<double> squares) {
  for (int64_t row = 0; row < m.rows; ++row) {
    const float* from = m.row<float>(row);
    for (size_t column = 0; column < sums.size(); ++column) {
      const double value = from[column];
      sums[column] += value;
      squares[column] += value * value;
    }
  }
}

}  // namespace scd::kernels::cpu
