// Keys and values of several layers of one sequence between their pages, where keys are after RoPE, and rows where they
// are before it: what codecs work on. One pass each way; bounded by memory.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matrix.h"
#include "kernels/paged_kv.h"
#include "kernels/rope.h"
#include "kernels/sequences.h"

namespace scd::kernels {

// layers: caches of one shape, dtype and device. Rows are those of the sequence alone, from its first_position on, and
// stand on that device, F32: the layers side by side, [rows, layers * kv_heads * head_dim]. table: of the keys' RoPE.

// pages -> keys without their RoPE, values.
void read_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                       Matrix keys, Matrix values);

// keys before RoPE, values -> pages.
void write_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                        ConstMatrix keys, ConstMatrix values);

}  // namespace scd::kernels
