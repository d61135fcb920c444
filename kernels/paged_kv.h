// The paged key/value cache of one layer, as ops see it, and the ops that write and read it.
// K (after RoPE) and V each [pages, kv_heads, page_tokens, head_dim].
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matrix.h"

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

// One sequence of a ragged batch. Its rows in the batch are [first_row, first_row + rows); the row i is the token at
// position first_position + i. page_ids[p / page_tokens] is the page of position p.
struct SequenceRows {
  std::span<const int32_t> page_ids;
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_position = 0;
};

// keys, values [total rows, kv_heads * head_dim] F32 -> pages.
void write_kv(const PagedKv& kv, std::span<const SequenceRows> sequences, ConstMatrix keys, ConstMatrix values);

// pages -> keys, values [rows, kv_heads * head_dim] F32.
void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values);

}  // namespace scd::kernels
