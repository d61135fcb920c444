// Of the ops it is made of, layer by layer.
#include <numeric>
#include <vector>

#include "kernels/cpu_kernels.h"
#include "kernels/grow_buffer.h"

namespace scd::kernels::cpu {
namespace {

template <class M>
M columns_of(M rows, size_t layer, int64_t width) {
  rows.data = rows.template row<float>(0) + static_cast<int64_t>(layer) * width;
  rows.columns = width;
  return rows;
}

std::vector<int32_t> positions_of(const SequenceRows& sequence) {
  std::vector<int32_t> positions(static_cast<size_t>(sequence.rows));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(sequence.first_position));
  return positions;
}

}  // namespace

void read_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                       Matrix keys, Matrix values) {
  const int64_t head_dim = layers.front().head_dim, width = layers.front().kv_heads * head_dim;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    cpu::read_kv(layers[layer], sequence, columns_of(keys, layer, width), columns_of(values, layer, width));
  }
  cpu::rope(keys, head_dim, positions_of(sequence), table, RopeDirection::kUnrotate);
}

void write_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                        ConstMatrix keys, ConstMatrix values) {
  const int64_t head_dim = layers.front().head_dim, width = layers.front().kv_heads * head_dim;
  thread_local GrowBuffer memory;
  const Matrix turned = memory.matrix(keys.rows, keys.columns);
  copy(keys, turned);
  cpu::rope(turned, head_dim, positions_of(sequence), table, RopeDirection::kRotate);
  SequenceRows own = sequence;
  own.first_row = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    cpu::write_kv(layers[layer], {&own, 1}, columns_of(ConstMatrix(turned), layer, width),
                  columns_of(values, layer, width));
  }
}

}  // namespace scd::kernels::cpu
