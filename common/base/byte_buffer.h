// Bytes on their way to a network. Whatever copies a large buffer page by page (process_vm_readv, registration with a
// network card) is faster on huge pages.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <vector>

namespace scd {

// Asks for huge pages where a whole one fits; a tail shorter than that stays on ordinary pages, so no memory is lost.
template <class T>
struct HugePageAllocator {
  using value_type = T;
  static constexpr size_t kHugePage = size_t{2} << 20;

  HugePageAllocator() = default;
  template <class U>
  HugePageAllocator(const HugePageAllocator<U>&) {}  // NOLINT(google-explicit-constructor): an allocator rebinds

  T* allocate(size_t count) {
    const size_t bytes = count * sizeof(T);
    const std::align_val_t alignment = alignment_of(bytes);
    void* memory = ::operator new(bytes, alignment);
    if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // only a hint
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t count) {
    const size_t bytes = count * sizeof(T);
    ::operator delete(memory, bytes, alignment_of(bytes));
  }

  template <class U>
  bool operator==(const HugePageAllocator<U>&) const {
    return true;
  }

 private:
  static constexpr std::align_val_t alignment_of(size_t bytes) {
    return static_cast<std::align_val_t>(bytes >= kHugePage ? kHugePage : alignof(std::max_align_t));
  }
};

using ByteBuffer = std::vector<std::byte, HugePageAllocator<std::byte>>;

}  // namespace scd
