// What tests of CUDA kernels share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/device.h"
#include "kernels/rope.h"
#include "tests/support/gpu.h"
#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {

// A copy of a matrix on the GPU, padding included.
class OnCuda {
 public:
  explicit OnCuda(OwnedMatrix& host)
      : whole_(host.view()),
        memory_(Device::kGpu, static_cast<size_t>(whole_.rows * whole_.row_stride) * size_of(whole_.dtype)) {
    whole_.columns = whole_.row_stride;
    columns_ = host.view().columns;
    copy(whole_, view(whole_.columns));
  }
  Matrix view() const { return view(columns_); }
  // Into the matrix it was copied from.
  void bring_back() const { copy(view(whole_.columns), whole_); }

 private:
  Matrix view(int64_t columns) const {
    return {memory_.data(), whole_.rows, columns, whole_.row_stride, whole_.dtype, Device::kGpu};
  }
  Matrix whole_;
  int64_t columns_ = 0;
  DeviceBuffer memory_;
};

inline void expect_near(const OwnedMatrix& cuda, const OwnedMatrix& cpu, double tolerance) {
  ASSERT_TRUE(cuda.padding_is_untouched());
  for (int64_t r = 0; r < cpu.rows(); ++r) {
    for (int64_t c = 0; c < cpu.columns(); ++c) {
      ASSERT_NEAR(cuda.at(r, c), cpu.at(r, c), tolerance * std::max(1.0, std::abs(cpu.at(r, c))))
          << "row " << r << " column " << c << " of [" << cpu.rows() << ", " << cpu.columns() << "]";
    }
  }
}

inline RopeTable rope_table(int64_t head_dim) {
  RopeTable table;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const auto power = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    table.inverse_frequencies.push_back(static_cast<float>(std::pow(500000.0, power)));
  }
  table.attention_scale = 1.25f;
  return table;
}

// One BF16 rounding more or less, or the last bits of FP32.
inline double tolerance(DType dtype) { return dtype == DType::kBF16 ? 8e-3 : 2e-6; }

class Cuda : public ::testing::Test {
 protected:
  void SetUp() override { SCD_SKIP_WITHOUT_GPU(); }
};

}  // namespace scd::kernels::testing
