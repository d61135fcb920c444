// Streaming second moments: X^T X of all rows seen so far, in memory that does not depend on their number.
#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "common/codec/dense_matrix.h"
#include "kernels/device.h"

namespace scd {

class SecondMoment {
 public:
  // Summed on `device`, where it takes 4 dims^2 bytes until leave_device().
  explicit SecondMoment(int64_t dims, kernels::Device device = kernels::Device::kCpu);

  // rows [n, dims] F32 on the device. Not after leave_device() or sum().
  void add(kernels::ConstMatrix rows);
  // rows [n, first.columns + second.columns] of the host: `first` and `second` side by side, row by row.
  void add_joined(kernels::ConstMatrix first, kernels::ConstMatrix second);

  int64_t samples() const { return samples_; }
  // Brings the sum to the host, where it takes as much. Nothing is added after it.
  void leave_device();
  // [dims, dims], not divided by samples(). Not from several threads at once.
  const Eigen::MatrixXd& sum() const;

 private:
  int64_t dims_;
  kernels::Device device_;
  int64_t samples_ = 0;
  mutable kernels::DeviceBuffer triangle_;  // of doubles, until sum() is asked for
  mutable Eigen::MatrixXd sum_;             // from then on
};

}  // namespace scd
