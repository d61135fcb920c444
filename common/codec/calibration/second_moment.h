// Streaming second moments: X^T X of all rows seen so far, in memory that does not depend on their number.
#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "common/codec/dense_matrix.h"

namespace scd {

// Rows are summed in blocks in FP32, blocks in double: the error stays that of one block.
class SecondMoment {
 public:
  explicit SecondMoment(int64_t dims);

  // rows [n, dims] F32
  void add(kernels::ConstMatrix rows);
  // rows [n, first.columns + second.columns]: `first` and `second` side by side, row by row.
  void add_joined(kernels::ConstMatrix first, kernels::ConstMatrix second);

  int64_t samples() const { return samples_; }
  const Eigen::MatrixXd& sum() const { return sum_; }  // [dims, dims], not divided by samples()

 private:
  Eigen::MatrixXd sum_;
  int64_t samples_ = 0;
  DenseMatrix block_sum_;
};

}  // namespace scd
