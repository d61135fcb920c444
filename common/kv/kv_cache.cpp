#include "common/kv/kv_cache.h"

#include <new>
#include <stdexcept>
#include <string>

namespace scd {

KvCache::KvCache(KvShape shape, int32_t pages, kernels::Device device) : shape_(shape), pool_(pages, kPageTokens) {
  SCD_CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0, "a KV cache has a shape");
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kResourceExhausted,
                "KV cache: cannot allocate " + std::to_string(bytes() >> 20) + " MiB" + why + "; lower kv_cache.pages");
  };
  try {
    memory_ = kernels::DeviceBuffer(device, bytes());
  } catch (const std::bad_alloc&) {
    refuse("");
  } catch (const std::runtime_error& error) {
    refuse(std::string(" (") + error.what() + ")");
  }
}

size_t KvCache::layer_bytes() const {
  return static_cast<size_t>(pool_.pages()) * static_cast<size_t>(pool_.page_tokens()) *
         static_cast<size_t>(shape_.kv_width()) * kernels::size_of(shape_.dtype);
}

size_t KvCache::bytes() const { return 2 * static_cast<size_t>(shape_.layers) * layer_bytes(); }

kernels::PagedKv KvCache::layer(int32_t index) const {
  SCD_CHECK(index >= 0 && index < shape_.layers, "layer of the KV cache");
  std::byte* keys = memory_.data() + 2 * static_cast<size_t>(index) * layer_bytes();
  return {keys,         keys + layer_bytes(), shape_.kv_heads, pool_.page_tokens(), shape_.head_dim,
          shape_.dtype, memory_.device()};
}

}  // namespace scd
