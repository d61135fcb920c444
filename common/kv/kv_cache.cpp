#include "common/kv/kv_cache.h"

#include <algorithm>
#include <new>
#include <string>

namespace scd {

namespace {

std::string mib(double bytes) { return std::to_string(static_cast<int64_t>(bytes) >> 20) + " MiB"; }
std::string mib(size_t bytes) { return mib(static_cast<double>(bytes)); }

}  // namespace

int32_t gpu_pages(const KvShape& shape, const GpuShare& share) {
  constexpr size_t kDriver = size_t{512} << 20;
  constexpr double kFewest = 8;
  constexpr double kMost = 1 << 24;
  const kernels::DeviceMemory memory = kernels::gpu_memory();
  const double page = 2.0 * shape.layers * static_cast<double>(shape.kv_width()) * kPageTokens *
                      static_cast<double>(kernels::size_of(shape.dtype));
  const auto total = static_cast<double>(memory.total_bytes), workspaces = static_cast<double>(share.workspace_bytes);
  const double allowed = share.memory_fraction * total - static_cast<double>(share.held_bytes);
  const double room = std::min(allowed, static_cast<double>(memory.free_bytes)) - workspaces -
                      static_cast<double>(share.coming_bytes + kDriver);
  if (room < kFewest * page) {
    throw Error(ErrorCode::kResourceExhausted,
                "KV cache: " + mib(share.held_bytes + share.coming_bytes) + " of weights and maps, " +
                    mib(share.workspace_bytes) + " of workspaces and " + mib(kDriver) +
                    " for the driver leave no room for pages in kv_cache.gpu_memory_fraction " +
                    std::to_string(share.memory_fraction) + " of the GPU's " + mib(total) + ", of which " +
                    mib(memory.free_bytes) + " are free; raise it, lower " + std::string(share.step_key) +
                    ", or use a larger GPU");
  }
  return static_cast<int32_t>(std::min(room / page, kMost));
}

int32_t cache_pages(const KvShape& shape, kernels::Device device, int32_t configured, const GpuShare& share) {
  if (device == kernels::Device::kCpu || share.memory_fraction == 0) return configured;
  return gpu_pages(shape, share);
}

std::string_view pages_key(kernels::Device device, double memory_fraction) {
  return device == kernels::Device::kCpu || memory_fraction == 0 ? "kv_cache.pages" : "kv_cache.gpu_memory_fraction";
}

KvCache::KvCache(KvShape shape, int32_t pages, kernels::Device device, std::string_view sized_by)
    : shape_(shape), pool_(pages, kPageTokens), sized_by_(sized_by) {
  SCD_CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0, "a KV cache has a shape");
  try {
    memory_ = kernels::DeviceBuffer(device, bytes());
  } catch (const std::bad_alloc& error) {
    throw Error(ErrorCode::kResourceExhausted, "KV cache: no memory for " + std::to_string(pages) + " pages, " +
                                                   mib(bytes()) + " (" + error.what() + "); lower " + sized_by_);
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
