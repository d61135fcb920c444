// RoPE over a chunk whose positions are consecutive.
#pragma once

#include <cstdint>
#include <span>

#include "common/codec/dense_matrix.h"
#include "kernels/rope.h"

namespace scd {

// keys [tokens, heads * head_dim] F32 in place; row i is the token at first_position + i.
void rotate_chunk(kernels::Matrix keys, int64_t head_dim, int64_t first_position, const kernels::RopeTable& table,
                  kernels::RopeDirection direction);

// A dense copy of keys [tokens, heads * head_dim] F32 without the RoPE that `table` gave them.
DenseMatrix unrotated_copy(kernels::ConstMatrix keys, int64_t head_dim, int64_t first_position,
                           const kernels::RopeTable& table);

}  // namespace scd
