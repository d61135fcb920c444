// Operands of benchmarks.
#pragma once

#include <cstdint>

#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/matrix.h"

namespace scd {

// Memory on a device, filled with normally distributed numbers: zeros flatter.
class FilledMatrix {
 public:
  FilledMatrix(kernels::Device device, int64_t rows, int64_t columns, kernels::DType dtype, uint64_t seed = 1,
               float deviation = 1.0f)
      : memory_(device, static_cast<size_t>(rows * columns) * kernels::size_of(dtype)),
        matrix_{memory_.data(), rows, columns, columns, dtype, device} {
    kernels::fill_normal(matrix_, seed, deviation);
  }
  const kernels::Matrix& operator*() const { return matrix_; }
  const kernels::Matrix* operator->() const { return &matrix_; }

 private:
  kernels::DeviceBuffer memory_;
  kernels::Matrix matrix_;
};

}  // namespace scd
