// RoPE over a chunk whose positions are consecutive.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/rope.h"

namespace scd {

// keys [tokens, heads * head_dim] F32 in place; row i is the token at first_position + i.
void rotate_chunk(kernels::Matrix keys, int64_t head_dim, int64_t first_position, const kernels::RopeTable& table,
                  kernels::RopeDirection direction);

}  // namespace scd
