#include "common/codec/key_rotation.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace scd {

void rotate_chunk(kernels::Matrix keys, int64_t head_dim, int64_t first_position, const kernels::RopeTable& table,
                  kernels::RopeDirection direction) {
  std::vector<int32_t> positions(static_cast<size_t>(keys.rows));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(first_position));
  kernels::rope(keys, head_dim, positions, table, direction);
}

DenseMatrix unrotated_copy(kernels::ConstMatrix keys, int64_t head_dim, int64_t first_position,
                           const kernels::RopeTable& table) {
  DenseMatrix copy(keys.rows, keys.columns);
  for (int64_t row = 0; row < keys.rows; ++row) {
    std::copy_n(keys.row<float>(row), keys.columns, copy.view().row<float>(row));
  }
  rotate_chunk(copy.view(), head_dim, first_position, table, kernels::RopeDirection::kUnrotate);
  return copy;
}

}  // namespace scd
