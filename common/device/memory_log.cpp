#include "common/device/memory_log.h"

#include <algorithm>

#include "common/log/log.h"
#include "kernels/device.h"

namespace scd {
namespace {

int64_t mib(size_t bytes) { return static_cast<int64_t>(bytes >> 20); }

}  // namespace

void log_memory(const ServerMemory& memory) {
  const size_t set_aside = memory.workspace.bytes(), expected = memory.held_before_warmth + set_aside;
  const size_t beside = std::max(kernels::gpu_held_bytes(), expected) - expected;
  const size_t known = memory.held_before + memory.weight_bytes + memory.page_bytes;
  log_info("memory", {{"device", memory.device},
                      {"weight_mib", mib(memory.weight_bytes)},
                      {"kv_cache_pages", memory.pages},
                      {"kv_cache_mib", mib(memory.page_bytes)},
                      {"codec_and_adapter_mib", mib(std::max(memory.held_before_warmth, known) - known)},
                      {"workspace_mib", mib(set_aside)},
                      {"workspace_used_mib", mib(memory.workspace.used_bytes() + beside)}});
}

}  // namespace scd
