// Where a token's keys and values stand in the pages.
#pragma once

#include <cstdint>

namespace scd::kernels::cuda {

struct Pool {
  int64_t kv_heads, page_tokens, head_dim;

  __host__ __device__ unsigned width() const { return static_cast<unsigned>(kv_heads * head_dim); }
};

// Where a token's values stand: those of a head together, heads a page's length apart.
struct TokenPlace {
  int64_t first;
  int64_t head_stride;
  unsigned head_dim;

  __device__ TokenPlace(const Pool& pool, const int32_t* page_ids, int64_t position)
      : first((page_ids[position / pool.page_tokens] * pool.kv_heads * pool.page_tokens + position % pool.page_tokens) *
              pool.head_dim),
        head_stride(pool.page_tokens * pool.head_dim),
        head_dim(static_cast<unsigned>(pool.head_dim)) {}
  __device__ int64_t at(unsigned column) const { return first + column / head_dim * head_stride + column % head_dim; }
};

}  // namespace scd::kernels::cuda
