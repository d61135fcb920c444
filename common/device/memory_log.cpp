#include "common/device/memory_log.h"

#include "common/log/log.h"
#include "kernels/device.h"

namespace scd {
namespace {

int64_t mib(size_t bytes) { return static_cast<int64_t>(bytes >> 20); }

}  // namespace

void log_memory(const ServerMemory& memory) {
  const auto taken = static_cast<int64_t>(kernels::gpu_held_bytes()) - static_cast<int64_t>(memory.held_before_warmth);
  log_info("memory", {{"device", memory.device},
                      {"weight_mib", mib(memory.weight_bytes)},
                      {"kv_cache_pages", memory.pages},
                      {"kv_cache_mib", mib(memory.page_bytes)},
                      {"workspace_mib", taken >> 20}});
}

}  // namespace scd
