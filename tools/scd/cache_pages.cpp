#include "tools/scd/cache_pages.h"

#include <utility>

namespace scd {
namespace {

int32_t pages_for(int64_t tokens) { return static_cast<int32_t>((tokens + kPageTokens - 1) / kPageTokens); }

kernels::SequenceRows rows_at(const PageTable& pages, PositionRange range) {
  return {pages.page_ids(), 0, range.count, range.first};
}

}  // namespace

SequenceCache::SequenceCache(KvShape shape, int64_t tokens)
    : cache(shape, pages_for(tokens)), pages(cache.pool().make_table()) {
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
  const KeysValues rows = read_rows(from, from_pages, layer, range);
  write_rows(to, to_pages, layer, range.first, rows.keys.view(), rows.values.view());
}

}  // namespace scd
