#include "common/codec/dense_matrix.h"

#include <algorithm>

#include "common/base/check.h"

namespace scd {

DenseMatrix transposed(const DenseMatrix& matrix) {
  DenseMatrix turned(matrix.columns, matrix.rows);
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t column = 0; column < matrix.columns; ++column) turned.at(column, row) = matrix.at(row, column);
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
