// What a server's memory is for: its workspaces on a GPU, and the line of its log that tells of all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/gpu_workspace.h"
#include "kernels/matrix.h"

namespace scd {

struct WorkspaceWish {
  size_t bytes = 0;
  double memory_fraction = 0;  // kv_cache.gpu_memory_fraction
  std::string advice;          // what makes them smaller: "lower limits.batch_tokens"
};

// Set aside at once; on the CPU nothing is. RESOURCE_EXHAUSTED with the numbers where there is no room although pages
// left some; where pages are counted by hand (memory_fraction 0) a warning, and steps take what they need as they go.
kernels::GpuWorkspace set_aside(kernels::Device device, const WorkspaceWish& wish);

struct ServerMemory {
  std::string device;  // as configured
  size_t weight_bytes = 0;
  int64_t pages = 0;
  size_t page_bytes = 0;          // of all pages
  size_t held_before = 0;         // kernels::gpu_held_bytes() before the model was loaded
  size_t held_before_warmth = 0;  // and before workspaces were taken
  const kernels::GpuWorkspace& workspace;
};

// Once the server is warm. Workspaces use more than was set aside for them where they had to take memory beside it; on
// the CPU both are 0.
void log_memory(const ServerMemory& memory);

}  // namespace scd
