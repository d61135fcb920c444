#include "common/kv/kv_cache.h"

#include <cstdlib>
#include <new>

namespace scd {

KvCache::KvCache(KvShape shape, int32_t pages, int32_t page_tokens)
    : shape_(shape), pool_(pages, page_tokens), memory_(nullptr, std::free) {
  SCD_CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0, "a KV cache has a shape");
  constexpr size_t kAlignment = 4096;
  const size_t wanted = (bytes() + kAlignment - 1) / kAlignment * kAlignment;
  // Untouched pages cost nothing until written, so a large pool starts cheaply.
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, wanted));
  if (memory == nullptr) {
    throw Error(ErrorCode::kResourceExhausted,
                "KV cache: cannot allocate " + std::to_string(wanted >> 20) + " MiB; lower kv_cache.pages");
  }
  memory_.reset(memory);
}

size_t KvCache::layer_bytes() const {
  return static_cast<size_t>(pool_.pages()) * static_cast<size_t>(pool_.page_tokens()) *
         static_cast<size_t>(shape_.kv_width()) * kernels::size_of(shape_.dtype);
}

size_t KvCache::bytes() const { return 2 * static_cast<size_t>(shape_.layers) * layer_bytes(); }

kernels::PagedKv KvCache::layer(int32_t index) const {
  SCD_CHECK(index >= 0 && index < shape_.layers, "layer of the KV cache");
  std::byte* keys = memory_.get() + 2 * static_cast<size_t>(index) * layer_bytes();
  return {keys, keys + layer_bytes(), shape_.kv_heads, pool_.page_tokens(), shape_.head_dim, shape_.dtype};
}

}  // namespace scd
