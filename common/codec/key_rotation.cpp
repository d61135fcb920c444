#include "common/codec/key_rotation.h"

#include <numeric>
#include <vector>

namespace scd {

void rotate_chunk(kernels::Matrix keys, int64_t head_dim, int64_t first_position, const kernels::RopeTable& table,
                  kernels::RopeDirection direction) {
  std::vector<int32_t> positions(static_cast<size_t>(keys.rows));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(first_position));
  kernels::rope(keys, head_dim, positions, table, direction);
}

}  // namespace scd
