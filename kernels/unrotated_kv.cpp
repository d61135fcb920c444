#include "kernels/unrotated_kv.h"

#include "kernels/check_sequences.h"
#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

void check(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
           const ConstMatrix& keys, const ConstMatrix& values, const char* op) {
  require(!layers.empty(), op, ": no layers");
  const PagedKv& first = layers.front();
  for (const PagedKv& kv : layers) {
    check_paged_kv(kv, op);
    require(kv.kv_heads == first.kv_heads && kv.page_tokens == first.page_tokens && kv.head_dim == first.head_dim &&
                kv.dtype == first.dtype && kv.device == first.device,
            op, ": the layers' caches are not alike");
    check_sequences(kv, {&sequence, 1}, sequence.first_row + sequence.rows, op);
  }
  require_on(first.device, keys, "keys without RoPE");
  require_on(first.device, values, "values beside keys without RoPE");
  const int64_t columns = static_cast<int64_t>(layers.size()) * first.kv_heads * first.head_dim;
  require(values.dtype == DType::kF32 && keys.columns == columns && values.columns == columns &&
              keys.rows == sequence.rows && values.rows == sequence.rows,
          op, ": keys ", keys, " and values ", values, " must be F32 [", sequence.rows, ", ", columns, "]");
  check_rope_heads(keys, first.head_dim, table);
}

}  // namespace

void read_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                       Matrix keys, Matrix values) {
  check(layers, sequence, table, keys, values, "read_unrotated_kv");
  if (keys.rows > 0) SCD_DISPATCH(keys.device, read_unrotated_kv(layers, sequence, table, keys, values));
}

void write_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                        ConstMatrix keys, ConstMatrix values) {
  check(layers, sequence, table, keys, values, "write_unrotated_kv");
  if (keys.rows > 0) SCD_DISPATCH(keys.device, write_unrotated_kv(layers, sequence, table, keys, values));
}

}  // namespace scd::kernels
