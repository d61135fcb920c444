#include "kernels/dense_f64.h"

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

void require_columns(const ConstColumnsF64& m, const char* name) {
  require_device_in_build(Device::kGpu);
  require(m.rows > 0 && m.columns > 0 && m.stride >= m.rows && m.data != nullptr, name, ": a column-major matrix of ",
          m.rows, " x ", m.columns, " with stride ", m.stride);
}

void require_square(const ConstColumnsF64& m, const char* name) {
  require_columns(m, name);
  require(m.rows == m.columns, name, ": ", m.rows, " x ", m.columns, " is not square");
}

}  // namespace

void multiply_f64(const ProductF64& args) {
  const auto& [a, b, c, transpose_a, transpose_b] = args;
  for (const ConstColumnsF64& m : {a, b, ConstColumnsF64(c)}) require_columns(m, "multiply_f64");
  const int64_t inner = transpose_a ? a.rows : a.columns;
  require(inner == (transpose_b ? b.columns : b.rows) && c.rows == (transpose_a ? a.columns : a.rows) &&
              c.columns == (transpose_b ? b.rows : b.columns),
          "multiply_f64: ", a.rows, " x ", a.columns, " and ", b.rows, " x ", b.columns, " do not make ", c.rows, " x ",
          c.columns);
  SCD_ON(Device::kGpu, cuda::multiply_f64(args), static_cast<void>(0));
}

bool eigen_f64(ColumnsF64 symmetric, [[maybe_unused]] double* values) {
  require_square(symmetric, "eigen_f64");
  return SCD_ON(Device::kGpu, cuda::eigen_f64(symmetric, values), false);
}

CholeskyF64::CholeskyF64(ConstColumnsF64 symmetric) : size_(symmetric.rows) {
  require_square(symmetric, "CholeskyF64");
  positive_definite_ = SCD_ON(Device::kGpu, cuda::factorise_f64(symmetric, factor_), false);
}

void CholeskyF64::solve(ColumnsF64 right, [[maybe_unused]] Parts parts) const {
  require_columns(right, "CholeskyF64");
  require(right.rows == size_ && positive_definite_, "CholeskyF64: ", right.rows, " rows for a factor of ", size_);
  SCD_ON(Device::kGpu, cuda::solve_f64(factor_, right, parts), static_cast<void>(0));
}

}  // namespace scd::kernels
