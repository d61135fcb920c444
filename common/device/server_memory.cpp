#include "common/device/server_memory.h"

#include <algorithm>
#include <new>

#include "common/base/error.h"
#include "common/log/log.h"
#include "kernels/device.h"

namespace scd {
namespace {

int64_t mib(size_t bytes) { return static_cast<int64_t>(bytes >> 20); }

}  // namespace

kernels::GpuWorkspace set_aside(kernels::Device device, const WorkspaceWish& wish) {
  if (device == kernels::Device::kCpu) return kernels::GpuWorkspace(0);
  const bool room_was_left = wish.memory_fraction > 0;
  const std::string advice = wish.advice + " or " + (room_was_left ? "kv_cache.gpu_memory_fraction" : "kv_cache.pages");
  try {
    return kernels::GpuWorkspace(wish.bytes);
  } catch (const std::bad_alloc& error) {
    if (room_was_left) {
      throw Error(ErrorCode::kResourceExhausted,
                  std::string("no memory for the workspaces of steps (") + error.what() + "); " + advice);
    }
    log_warning("workspaces_not_set_aside", {{"reason", error.what()}, {"next", advice}});
  }
  return kernels::GpuWorkspace(0);
}

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
