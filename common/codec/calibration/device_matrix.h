// A matrix that owns its values on the device that works on them.
#pragma once

#include <cstdint>
#include <span>

#include "common/codec/dense_matrix.h"
#include "kernels/device.h"

namespace scd {

// [rows, columns] F32, row-major, dense.
class DeviceMatrix {
 public:
  // Contents are undefined.
  DeviceMatrix(int64_t rows, int64_t columns, kernels::Device device)
      : memory_(device, static_cast<size_t>(rows * columns) * sizeof(float)), rows_(rows), columns_(columns) {}
  DeviceMatrix(const DenseMatrix& values, kernels::Device device) : DeviceMatrix(values.rows, values.columns, device) {
    kernels::copy(values.view(), view());
  }

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  kernels::Matrix view() const {
    return {memory_.data(), rows_, columns_, columns_, kernels::DType::kF32, memory_.device()};
  }
  // The first row, for ops on the same device.
  std::span<const float> row() const {
    return {reinterpret_cast<const float*>(memory_.data()), static_cast<size_t>(columns_)};
  }
  DenseMatrix on_host() const {
    DenseMatrix values(rows_, columns_);
    kernels::copy(view(), values.view());
    return values;
  }

 private:
  kernels::DeviceBuffer memory_;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
};

}  // namespace scd
