#include "common/kv/kv_cache.h"

#include <algorithm>
#include <new>
#include <string>

namespace scd {

int32_t gpu_pages(const KvShape& shape, double memory_fraction, size_t held_bytes) {
  constexpr double kScratch = 1024.0 * 1024 * 1024;
  constexpr double kFewest = 8;
  constexpr double kMost = 1 << 24;
  const kernels::DeviceMemory memory = kernels::cuda_memory();
  const double page = 2.0 * shape.layers * static_cast<double>(shape.kv_width()) * kPageTokens *
                      static_cast<double>(kernels::size_of(shape.dtype));
  const double share = memory_fraction * static_cast<double>(memory.total_bytes) - static_cast<double>(held_bytes);
  const double room = std::min(share, static_cast<double>(memory.free_bytes)) - kScratch;
  if (room < kFewest * page) {
    const auto mib = [](double bytes) { return std::to_string(static_cast<int64_t>(bytes) >> 20) + " MiB"; };
    throw Error(ErrorCode::kResourceExhausted,
                "KV cache: " + mib(static_cast<double>(held_bytes)) + " of weights and " + mib(kScratch) +
                    " for scratch leave no room for pages in kv_cache.gpu_memory_fraction " +
                    std::to_string(memory_fraction) + " of the GPU's " + mib(static_cast<double>(memory.total_bytes)) +
                    ", of which " + mib(static_cast<double>(memory.free_bytes)) +
                    " are free; raise it, or use a larger GPU");
  }
  return static_cast<int32_t>(std::min(room / page, kMost));
}

int32_t cache_pages(const KvShape& shape, kernels::Device device, int32_t configured, double memory_fraction,
                    size_t held_bytes) {
  if (device == kernels::Device::kCpu || memory_fraction == 0) return configured;
  return gpu_pages(shape, memory_fraction, held_bytes);
}

KvCache::KvCache(KvShape shape, int32_t pages, kernels::Device device) : shape_(shape), pool_(pages, kPageTokens) {
  SCD_CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0, "a KV cache has a shape");
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kResourceExhausted,
                "KV cache: cannot allocate " + std::to_string(bytes() >> 20) + " MiB" + why + "; lower kv_cache.pages");
  };
  try {
    memory_ = kernels::DeviceBuffer(device, bytes());
  } catch (const std::bad_alloc& error) {
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
