// A matrix that owns its values: the maps of a codec and of its calibration.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/matrix.h"

namespace scd {

// [rows, columns] F32, row-major, dense.
struct DenseMatrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<float> values;

  DenseMatrix() = default;
  DenseMatrix(int64_t row_count, int64_t column_count)
      : rows(row_count), columns(column_count), values(static_cast<size_t>(row_count * column_count)) {}

  bool empty() const { return values.empty(); }
  float& at(int64_t row, int64_t column) { return values[static_cast<size_t>(row * columns + column)]; }
  float at(int64_t row, int64_t column) const { return values[static_cast<size_t>(row * columns + column)]; }
  kernels::Matrix view() { return kernels::matrix(values.data(), rows, columns); }
  kernels::ConstMatrix view() const { return kernels::matrix(values.data(), rows, columns); }
  // The first `count` rows: what a rank cap leaves of a map whose rows are ordered by importance.
  kernels::ConstMatrix top(int64_t count) const { return kernels::matrix(values.data(), count, columns); }
  bool operator==(const DenseMatrix&) const = default;
};

DenseMatrix transposed(const DenseMatrix& matrix);

// [left right], of as many rows.
DenseMatrix side_by_side(kernels::ConstMatrix left, kernels::ConstMatrix right);

}  // namespace scd
