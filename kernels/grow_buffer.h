// Scratch memory that only grows: a pass of the same size as one before allocates nothing.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "kernels/device.h"
#include "kernels/matrix.h"

namespace scd::kernels {

// Contents are undefined after each call. Cache-line aligned; large ones on huge pages where the system gives them.
class GrowBuffer {
 public:
  Matrix matrix(int64_t rows, int64_t columns, DType dtype = DType::kF32, Device device = Device::kCpu) {
    const size_t bytes = static_cast<size_t>(rows * columns) * size_of(dtype);
    std::byte* memory = device == Device::kCpu ? reserve(bytes) : reserve_on(device, bytes);
    return {memory, rows, columns, columns, dtype, device};
  }

 private:
  static constexpr size_t kCacheLine = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;

  std::byte* reserve(size_t bytes) {
    if (bytes <= capacity_) return memory_.get();
    memory_.reset();  // before the larger one exists: peaks matter more than a copy that is not needed
    capacity_ = 0;
    const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kCacheLine;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
    if (memory_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
    if (alignment == kHugePage) ::madvise(memory_.get(), rounded, MADV_HUGEPAGE);  // advice: changes speed only
#endif
    capacity_ = rounded;
    return memory_.get();
  }

  std::byte* reserve_on(Device device, size_t bytes) {
    grow(on_device_, device, bytes);
    return on_device_.data();
  }

  DeviceBuffer on_device_;
  std::unique_ptr<std::byte[], void (*)(void*)> memory_{nullptr, std::free};
  size_t capacity_ = 0;
};

}  // namespace scd::kernels
