// Random factors of a fused layer for tests.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/low_rank.h"
#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {

struct PartShape {
  int64_t first_output = 0;
  int64_t outputs = 0;
  int64_t rank = 0;
};

struct Factors {
  std::vector<PartShape> shapes;
  int64_t in = 0;
  int64_t out = 0;
  std::vector<OwnedMatrix> a, b;  // [rank, in], [outputs, rank]

  PackedLowRank packed(DType precision, Device device = Device::kCpu) {
    std::vector<LowRankPart> parts;
    for (size_t i = 0; i < shapes.size(); ++i) parts.push_back({shapes[i].first_output, a[i].view(), b[i].view()});
    return {parts, in, out, precision, device};
  }
};

inline Factors random_factors(std::span<const PartShape> shapes, int64_t in, int64_t out, uint32_t seed) {
  Factors factors{{shapes.begin(), shapes.end()}, in, out, {}, {}};
  for (const PartShape& shape : shapes) {
    factors.a.push_back(random_matrix(shape.rank, in, DType::kF32, ++seed, 3));
    factors.b.push_back(random_matrix(shape.outputs, shape.rank, DType::kF32, ++seed, 1));
  }
  return factors;
}

}  // namespace scd::kernels::testing
