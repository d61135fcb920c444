#include "common/codec/calibration/second_moment.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "kernels/linear.h"

namespace scd {
namespace {

constexpr int64_t kBlockRows = 1024;

}  // namespace

SecondMoment::SecondMoment(int64_t dims) : sum_(Eigen::MatrixXd::Zero(dims, dims)), block_sum_(dims, dims) {}

void SecondMoment::add(kernels::ConstMatrix rows) {
  SCD_CHECK(rows.columns == block_sum_.columns && rows.dtype == kernels::DType::kF32, "rows of a second moment");
  for (int64_t first = 0; first < rows.rows; first += kBlockRows) {
    kernels::ConstMatrix block = rows;
    block.data = rows.row<float>(first);
    block.rows = std::min(kBlockRows, rows.rows - first);
    kernels::gemm_f32({.a = block, .b = block, .c = block_sum_.view(), .transpose_a = true});
    using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    sum_ += Eigen::Map<const RowMajor>(block_sum_.values.data(), block_sum_.rows, block_sum_.columns).cast<double>();
  }
  samples_ += rows.rows;
}

void SecondMoment::add_joined(kernels::ConstMatrix first, kernels::ConstMatrix second) {
  SCD_CHECK(first.rows == second.rows, "as many rows on both sides");
  DenseMatrix joined(std::min(kBlockRows, first.rows), first.columns + second.columns);
  for (int64_t begin = 0; begin < first.rows; begin += kBlockRows) {
    const int64_t count = std::min(kBlockRows, first.rows - begin);
    for (int64_t r = 0; r < count; ++r) {
      float* row = joined.view().row<float>(r);
      std::copy_n(first.row<float>(begin + r), first.columns, row);
      std::copy_n(second.row<float>(begin + r), second.columns, row + first.columns);
    }
    add(std::as_const(joined).top(count));
  }
}

}  // namespace scd
