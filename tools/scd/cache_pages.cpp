#include "tools/scd/cache_pages.h"

#include <utility>

#include "kernels/grow_buffer.h"

namespace scd {
namespace {

int32_t pages_for(int64_t tokens) { return static_cast<int32_t>((tokens + kPageTokens - 1) / kPageTokens); }

kernels::SequenceRows rows_at(const PageTable& pages, PositionRange range) {
  return {pages.page_ids(), 0, range.count, range.first};
}

}  // namespace

SequenceCache::SequenceCache(KvShape shape, int64_t tokens, kernels::Device device)
    : cache(shape, pages_for(tokens), device), pages(cache.pool().make_table()) {
  (void)pages.reserve(tokens).value_or_throw();
}

KeysValues read_rows(const KvCache& cache, const PageTable& pages, int32_t layer, PositionRange range) {
  const int64_t width = cache.shape().kv_width();
  KeysValues rows{DenseMatrix(range.count, width), DenseMatrix(range.count, width)};
  kernels::read_kv(cache.layer(layer), rows_at(pages, range), rows.keys.view(), rows.values.view());
  return rows;
}

void write_rows(KvCache& cache, const PageTable& pages, int32_t layer, int64_t first_position,
                kernels::ConstMatrix keys, kernels::ConstMatrix values) {
  const kernels::SequenceRows rows = rows_at(pages, {first_position, keys.rows});
  kernels::write_kv(cache.layer(layer), std::span(&rows, 1), keys, values);
}

void copy_rows(const KvCache& from, const PageTable& from_pages, KvCache& to, const PageTable& to_pages, int32_t layer,
               PositionRange range) {
  if (range.count == 0) return;
  thread_local kernels::GrowBuffer keys_memory, values_memory;
  const kernels::PagedKv pages = from.layer(layer);
  const int64_t width = from.shape().kv_width();
  const kernels::Matrix keys = keys_memory.matrix(range.count, width, kernels::DType::kF32, pages.device);
  const kernels::Matrix values = values_memory.matrix(range.count, width, kernels::DType::kF32, pages.device);
  kernels::read_kv(pages, rows_at(from_pages, range), keys, values);
  write_rows(to, to_pages, layer, range.first, keys, values);
}

}  // namespace scd
