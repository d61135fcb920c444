// Moving rows between caches, as experiments do: the whole of what a page table covers, or a range of positions.
#pragma once

#include <cstdint>

#include "common/codec/dense_matrix.h"
#include "common/kv/kv_cache.h"

namespace scd {

// A cache and one sequence's pages in it. Pages are taken once, for `tokens` positions.
struct SequenceCache {
  KvCache cache;
  PageTable pages;

  SequenceCache(KvShape shape, int64_t tokens, kernels::Device device = kernels::Device::kCpu);
};

struct PositionRange {
  int64_t first = 0;
  int64_t count = 0;
};

// Keys and values of one layer, [count, kv_width] F32 each.
struct KeysValues {
  DenseMatrix keys;
  DenseMatrix values;
};

KeysValues read_rows(const KvCache& cache, const PageTable& pages, int32_t layer, PositionRange range);
void write_rows(KvCache& cache, const PageTable& pages, int32_t layer, int64_t first_position,
                kernels::ConstMatrix keys, kernels::ConstMatrix values);
void copy_rows(const KvCache& from, const PageTable& from_pages, KvCache& to, const PageTable& to_pages, int32_t layer,
               PositionRange range);

}  // namespace scd
