// Bytes on their way to a network: in the memory a network card knows from the start, or where that has no room in
// ordinary memory, on huge pages where whole ones fit. Whatever copies or registers a large buffer page by page
// (process_vm_readv, a network card) is faster on those.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <vector>

#include "common/base/send_memory.h"

namespace scd {

template <class T>
struct SendAllocator {
  using value_type = T;
  static constexpr size_t kHugePage = size_t{2} << 20;

  SendAllocator() = default;
  template <class U>
  SendAllocator(const SendAllocator<U>&) {}  // NOLINT(google-explicit-constructor): an allocator rebinds

  T* allocate(size_t count) {
    const size_t bytes = count * sizeof(T);
    if (std::byte* const known = SendMemory::of_process().take(bytes)) return reinterpret_cast<T*>(known);
    const std::align_val_t alignment = alignment_of(bytes);
    void* memory = ::operator new(bytes, alignment);
    if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // only a hint
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t count) {
    const size_t bytes = count * sizeof(T);
    if (SendMemory::of_process().give_back(reinterpret_cast<std::byte*>(memory), bytes)) return;
    ::operator delete(memory, bytes, alignment_of(bytes));
  }

  template <class U>
  bool operator==(const SendAllocator<U>&) const {
    return true;
  }

 private:
  static constexpr std::align_val_t alignment_of(size_t bytes) {
    return static_cast<std::align_val_t>(bytes >= kHugePage ? kHugePage : alignof(std::max_align_t));
  }
};

using ByteBuffer = std::vector<std::byte, SendAllocator<std::byte>>;

}  // namespace scd
