// The memory behind a PagePool: per layer K (after RoPE) and V, each [pages, kv_heads, page_tokens, head_dim].
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/kv/page_pool.h"
#include "kernels/device.h"
#include "kernels/paged_kv.h"

namespace scd {

struct KvShape {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  kernels::DType dtype = kernels::DType::kBF16;

  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }  // values of one token's K (or V) in a layer
  // Bytes of one token's K and V over all layers in BF16: what `ratio to BF16` compares with.
  int64_t bf16_bytes_per_token() const { return int64_t{layers} * 2 * kv_width() * 2; }
};

inline constexpr int32_t kPageTokens = 16;

// What a server may take of a GPU's memory, and what it needs beside pages.
struct GpuShare {
  double memory_fraction = 0;      // kv_cache.gpu_memory_fraction
  size_t held_bytes = 0;           // weights, and maps of codecs, on the GPU already
  size_t coming_bytes = 0;         // the same, not there yet
  size_t workspace_bytes = 0;      // common/model/workspace.h
  std::string_view step_key = {};  // of the configuration: lower, it makes workspaces smaller
};

// Pages that fit on the GPU so that they and what the share names, and half a GiB for the driver's context and code,
// take the fraction of its memory, or what is free of it. RESOURCE_EXHAUSTED with the numbers where that is not even a
// few pages.
int32_t gpu_pages(const KvShape& shape, const GpuShare& share);

// What a server's cache has: on the CPU, or where the fraction is 0, as many pages as configured; else gpu_pages().
int32_t cache_pages(const KvShape& shape, kernels::Device device, int32_t configured, const GpuShare& share);

// The key of the configuration that decided.
std::string_view pages_key(kernels::Device device, double memory_fraction);

class KvCache {
 public:
  // sized_by: the key that says how many pages, for messages. RESOURCE_EXHAUSTED with the numbers where the memory does
  // not suffice.
  KvCache(KvShape shape, int32_t pages, kernels::Device device = kernels::Device::kCpu,
          std::string_view sized_by = "kv_cache.pages");

  const KvShape& shape() const { return shape_; }
  PagePool& pool() { return pool_; }
  const PagePool& pool() const { return pool_; }
  kernels::PagedKv layer(int32_t index) const;
  size_t bytes() const;
  const std::string& sized_by() const { return sized_by_; }

 private:
  size_t layer_bytes() const;  // of K, or of V
  KvShape shape_;
  PagePool pool_;
  std::string sized_by_;
  kernels::DeviceBuffer memory_;
};

}  // namespace scd
