// Memory of the emulated GPU. The host faults where it touches it, as on a real machine, and everybody faults behind
// its end.
#pragma once

#include <cstddef>

namespace scd::cuda_on_cpu {

inline constexpr size_t kDeviceBytes = size_t{16} << 30;  // named, not taken
inline constexpr int kUnwritten = 0xff;                   // bytes nobody wrote: NaN as floats, -1 as integers

void* allocate_device_memory(size_t bytes);  // null: there is not so much
bool release_device_memory(void* memory);    // false: it was not allocated
bool is_device_memory(const void* memory);
size_t free_device_memory();

// Page-locked memory of the host.
void* allocate_pinned_memory(size_t bytes);
bool release_pinned_memory(void* memory);
bool is_pinned_memory(const void* memory);

// While it lives, its thread may touch device memory.
class DeviceWork {
 public:
  DeviceWork();
  DeviceWork(const DeviceWork&) = delete;
  DeviceWork& operator=(const DeviceWork&) = delete;
  ~DeviceWork();
};

// Within such work, while it shares itself with threads of its own (OpenBLAS).
struct SharedDeviceWork {
  SharedDeviceWork();
  SharedDeviceWork(const SharedDeviceWork&) = delete;
  SharedDeviceWork& operator=(const SharedDeviceWork&) = delete;
  ~SharedDeviceWork();
};

}  // namespace scd::cuda_on_cpu
