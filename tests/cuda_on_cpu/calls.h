// What a steady state does without, counted over the whole process.
#pragma once

#include <cstdint>

namespace scd::cuda_on_cpu {

struct Calls {
  int64_t device_allocations = 0;
  int64_t pinned_allocations = 0;
  int64_t graphs = 0;   // made of recordings
  int64_t waits = 0;    // of the host for work that was not done; giving memory back is one
  int64_t drained = 0;  // of those, for the last that a stream had: its GPU idles until the host comes with more
};
Calls calls();

// For so many more graphs there is memory; a large number at first.
void leave_room_for_graphs(int64_t more);

}  // namespace scd::cuda_on_cpu
