#include "kernels/rope.h"

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {

void check_rope_heads(const ConstMatrix& x, int64_t head_dim, const RopeTable& table) {
  require_matrix(x, "the input of rope");
  require(x.dtype == DType::kF32, "rope: the input ", x, " must be F32");
  require(head_dim > 0 && head_dim % 2 == 0 && x.columns % head_dim == 0, "rope: heads of ", head_dim,
          " must be even and divide the input ", x);
  require(static_cast<int64_t>(table.inverse_frequencies.size()) * 2 == head_dim,
          "rope: ", static_cast<int64_t>(table.inverse_frequencies.size()), " frequencies for heads of ", head_dim);
  require(table.attention_scale > 0.0f, "rope: the attention scale must be positive");
}

void check_rope(const ConstMatrix& x, int64_t head_dim, const Indices& positions, const RopeTable& table) {
  check_rope_heads(x, head_dim, table);
  require(positions.size() == x.rows, "rope: ", positions.size(), " positions for an input ", x);
  for (int32_t position : positions.host) {
    require(position >= 0, "rope: position ", static_cast<int64_t>(position), " is negative");
  }
}

void rope(Matrix x, int64_t head_dim, Indices positions, const RopeTable& table, RopeDirection direction) {
  check_rope(x, head_dim, positions, table);
  if (x.rows > 0) SCD_DISPATCH(x.device, rope(x, head_dim, positions, table, direction));
}

}  // namespace scd::kernels
