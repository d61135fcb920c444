#include "common/codec/dense_matrix.h"

#include <algorithm>

#include "common/base/check.h"

namespace scd {

DenseMatrix transposed(const DenseMatrix& matrix) {
  constexpr int64_t kRows = 16;  // of a cache line's values
  DenseMatrix turned(matrix.columns, matrix.rows);
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < matrix.rows; first += kRows) {
    const int64_t end = std::min(first + kRows, matrix.rows);
    for (int64_t column = 0; column < matrix.columns; ++column) {
      for (int64_t row = first; row < end; ++row) turned.at(column, row) = matrix.at(row, column);
    }
  }
  return turned;
}

DenseMatrix side_by_side(kernels::ConstMatrix left, kernels::ConstMatrix right) {
  SCD_CHECK(left.rows == right.rows, "as many rows on both sides");
  DenseMatrix joined(left.rows, left.columns + right.columns);
  for (int64_t row = 0; row < left.rows; ++row) {
    float* target = joined.view().row<float>(row);
    std::copy_n(left.row<float>(row), left.columns, target);
    std::copy_n(right.row<float>(row), right.columns, target + left.columns);
  }
  return joined;
}

}  // namespace scd
