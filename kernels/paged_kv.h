// The paged key/value cache of one layer, as ops see it, and the ops that write and read it.
// K (after RoPE) and V each [pages, kv_heads, page_tokens, head_dim].
#pragma once

#include <cstdint>

#include "kernels/matrix.h"
#include "kernels/rope.h"
#include "kernels/sequences.h"

namespace scd::kernels {

struct PagedKv {
  void* keys = nullptr;
  void* values = nullptr;
  int64_t kv_heads = 0;
  int64_t page_tokens = 0;
  int64_t head_dim = 0;
  DType dtype = DType::kF32;  // F32 or BF16
  Device device = Device::kCpu;
  int64_t pages = 0;  // of the pool, for the range check of page ids; 0: not known, the caller answers for them
};

// keys, values [total rows, kv_heads * head_dim], both F32 or both BF16 -> pages. They may be on the host while the
// cache is on CUDA.
void write_kv(const PagedKv& kv, Sequences sequences, ConstMatrix keys, ConstMatrix values);

// rope() and write_kv() in one pass over qkv [total rows, (query heads + 2 kv_heads) * head_dim] F32, on the cache's
// device: queries are rotated in place, keys rotated on their way into the pages, values written as they are. What qkv
// holds of keys and values afterwards means nothing. positions: those of the sequences.
void rope_write_kv(const PagedKv& kv, Sequences sequences, Indices positions, const RopeTable& table, Matrix qkv);

// pages -> keys, values [rows, kv_heads * head_dim], both F32 or both BF16, on the cache's device or on the host. What
// is rounded to BF16 on the way has the same bits on every device, a NaN too (number.h).
void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values);

}  // namespace scd::kernels
