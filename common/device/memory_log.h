// The line of a server's log that says what its memory is for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/gpu_workspace.h"

namespace scd {

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
