// A uniform sample of a stream of row pairs, of bounded size (Vitter 1985, algorithm R).
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "common/codec/dense_matrix.h"

namespace scd {

// Rows are kept in BF16, the precision models compute in. The same stream and seed keep the same rows.
class PairReservoir {
 public:
  PairReservoir(int64_t capacity, int64_t first_width, int64_t second_width, uint64_t seed);

  // first [n, first_width], second [n, second_width] F32, on any device: n pairs.
  void add(kernels::ConstMatrix first, kernels::ConstMatrix second);

  int64_t size() const;
  DenseMatrix first() const;   // [size, first_width]
  DenseMatrix second() const;  // [size, second_width]

 private:
  DenseMatrix unpack(int64_t offset, int64_t width) const;

  int64_t capacity_;
  int64_t first_width_;
  int64_t second_width_;
  int64_t seen_ = 0;
  std::mt19937_64 random_;
  std::vector<kernels::BFloat16> rows_;  // [size, first_width + second_width]
};

}  // namespace scd
