#include "kernels/paged_kv.h"

#include "kernels/check_sequences.h"
#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

// Rows may be on the host while the cache is on CUDA.
void check_matrix(const PagedKv& kv, const ConstMatrix& m, const char* name) {
  if (kv.device == Device::kGpu && m.device == Device::kGpu) {
    require_matrix(m, name);
  } else {
    require_cpu(m, name);
  }
  require(m.dtype != DType::kF16, name, " ", m, " of the cache must be F32 or BF16");
  require(m.columns == kv.kv_heads * kv.head_dim, name, " ", m, " must have ", kv.kv_heads, " heads of ", kv.head_dim);
}

void check_rows(const PagedKv& kv, const ConstMatrix& keys, const ConstMatrix& values, const char* op) {
  check_matrix(kv, keys, "keys");
  check_matrix(kv, values, "values");
  require(keys.rows == values.rows, op, ": keys ", keys, " and values ", values, " differ in rows");
  require(keys.dtype == values.dtype, op, ": keys ", keys, " and values ", values, " differ in dtype");
  require(keys.device == values.device, op, ": keys on ", keys.device, ", values on ", values.device);
}

void check_sequence(const PagedKv& kv, const SequenceRows& sequence, int64_t total_rows, const char* op) {
  require(sequence.rows >= 0 && sequence.first_row >= 0 && sequence.first_row + sequence.rows <= total_rows, op,
          ": rows [", sequence.first_row, ", ", sequence.first_row + sequence.rows, ") of a sequence are outside the ",
          total_rows, " rows of the batch");
  require(sequence.first_position >= 0, op, ": position ", sequence.first_position, " is negative");
  const int64_t tokens = sequence.rows == 0 ? 0 : sequence.first_position + sequence.rows;
  const int64_t pages = (tokens + kv.page_tokens - 1) / kv.page_tokens;
  require(static_cast<int64_t>(sequence.page_ids.size()) >= pages, op, ": ",
          static_cast<int64_t>(sequence.page_ids.size()), " pages do not hold ", tokens, " tokens");
  for (int32_t page : sequence.page_ids.first(static_cast<size_t>(pages))) {
    require(page >= 0 && (kv.pages == 0 || page < kv.pages), op, ": page ", static_cast<int64_t>(page),
            " is outside the pool of ", kv.pages);
  }
}

}  // namespace

void check_paged_kv(const PagedKv& kv, const char* op) {
  require_device_in_build(kv.device);
  require(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16, op, ": the cache must be F32 or BF16");
  require(kv.kv_heads > 0 && kv.page_tokens > 0 && kv.head_dim > 0, op, ": a cache of ", kv.kv_heads, " heads of ",
          kv.head_dim, " in pages of ", kv.page_tokens, " tokens");
  require(kv.keys != nullptr && kv.values != nullptr, op, ": the cache has no memory");
}

void check_sequences(const PagedKv& kv, std::span<const SequenceRows> sequences, int64_t total_rows, const char* op) {
  for (const SequenceRows& sequence : sequences) check_sequence(kv, sequence, total_rows, op);
}

void write_kv(const PagedKv& kv, Sequences sequences, ConstMatrix keys, ConstMatrix values) {
  check_paged_kv(kv, "write_kv");
  check_rows(kv, keys, values, "write_kv");
  check_sequences(kv, sequences.host, keys.rows, "write_kv");
  if (keys.rows > 0) SCD_DISPATCH(kv.device, write_kv(kv, sequences, keys, values));
}

void rope_write_kv(const PagedKv& kv, Sequences sequences, Indices positions, const RopeTable& table, Matrix qkv) {
  check_paged_kv(kv, "rope_write_kv");
  require_on(kv.device, qkv, "the rows of rope_write_kv");
  const int64_t width = kv.kv_heads * kv.head_dim, keys = qkv.columns - 2 * width;
  require(qkv.dtype == DType::kF32 && keys >= 0 && keys % kv.head_dim == 0, "rope_write_kv: the rows ", qkv,
          " must be F32, queries beside keys and values of ", kv.kv_heads, " heads of ", kv.head_dim);
  check_rope(qkv, kv.head_dim, positions, table);
  check_sequences(kv, sequences.host, qkv.rows, "rope_write_kv");
  if (qkv.rows == 0) return;
#ifdef SCD_CUDA
  if (kv.device == Device::kGpu) return cuda::rope_write_kv(kv, sequences, table, qkv);
#endif
  cpu::rope(columns_of(qkv, 0, keys + width), kv.head_dim, positions, table, RopeDirection::kRotate);
  cpu::write_kv(kv, sequences, columns_of(qkv, keys, width), columns_of(qkv, keys + width, width));
}

void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values) {
  check_paged_kv(kv, "read_kv");
  check_rows(kv, keys, values, "read_kv");
  require(keys.rows == sequence.rows, "read_kv: keys and values ", keys, " for ", sequence.rows, " rows");
  check_sequences(kv, {&sequence, 1}, sequence.first_row + sequence.rows, "read_kv");
  if (sequence.rows > 0) SCD_DISPATCH(kv.device, read_kv(kv, sequence, keys, values));
}

}  // namespace scd::kernels
