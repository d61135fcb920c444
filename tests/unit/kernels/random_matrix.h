// Matrices for kernel tests: they own their memory, may have a row stride wider than a row, and read back as double.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/matrix.h"

namespace scd::kernels::testing {

inline constexpr float kCanary = 12345.0f;  // fills the padding: ops must leave it alone

class OwnedMatrix {
 public:
  OwnedMatrix(int64_t rows, int64_t columns, DType dtype, int64_t padding = 0)
      : rows_(rows), columns_(columns), stride_(columns + padding), dtype_(dtype) {
    floats_.assign(dtype == DType::kF32 ? static_cast<size_t>(rows * stride_) : 0, kCanary);
    halves_.assign(dtype == DType::kF32 ? 0 : static_cast<size_t>(rows * stride_), to_bfloat16(kCanary));
  }

  Matrix view() {
    void* data = dtype_ == DType::kF32 ? static_cast<void*>(floats_.data()) : static_cast<void*>(halves_.data());
    return {data, rows_, columns_, stride_, dtype_};
  }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

  double at(int64_t r, int64_t c) const {
    const size_t index = static_cast<size_t>(r * stride_ + c);
    return dtype_ == DType::kF32 ? floats_[index] : to_float(halves_[index]);
  }
  void set(int64_t r, int64_t c, float value) {
    const size_t index = static_cast<size_t>(r * stride_ + c);
    if (dtype_ == DType::kF32) {
      floats_[index] = value;
    } else {
      halves_[index] = to_bfloat16(value);
    }
  }
  bool padding_is_untouched() const {
    const double canary = dtype_ == DType::kF32 ? kCanary : to_float(to_bfloat16(kCanary));
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = columns_; c < stride_; ++c) {
        if (at(r, c) != canary) return false;
      }
    }
    return true;
  }

 private:
  int64_t rows_;
  int64_t columns_;
  int64_t stride_;
  DType dtype_;
  std::vector<float> floats_;
  std::vector<BFloat16> halves_;
};

inline OwnedMatrix random_matrix(int64_t rows, int64_t columns, DType dtype, uint32_t seed, int64_t padding = 0) {
  OwnedMatrix m(rows, columns, dtype, padding);
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> values(-1.0f, 1.0f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) m.set(r, c, values(generator));
  }
  return m;
}

inline std::vector<float> random_vector(int64_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> values(-1.0f, 1.0f);
  std::vector<float> result(static_cast<size_t>(n));
  for (float& value : result) value = values(generator);
  return result;
}

inline double rounded_to(DType dtype, double value) {
  return dtype == DType::kBF16 ? to_float(to_bfloat16(static_cast<float>(value))) : value;
}

}  // namespace scd::kernels::testing
