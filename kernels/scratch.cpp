#include "kernels/scratch.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace scd::kernels::cpu {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

std::byte* allocate(size_t bytes) {
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kCacheLine;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
#ifdef __linux__
  if (alignment == kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);  // advice: its failure changes speed only
#endif
  std::memset(memory, 0, rounded);
  return static_cast<std::byte*>(memory);
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes) : data_(bytes == 0 ? nullptr : allocate(bytes)), size_(bytes) {}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

std::byte* AlignedBuffer::data() const { return data_; }
size_t AlignedBuffer::size() const { return size_; }

std::byte* scratch(ScratchSlot slot, size_t bytes) {
  thread_local std::array<AlignedBuffer, static_cast<size_t>(ScratchSlot::kCount)> slots;
  AlignedBuffer& buffer = slots[static_cast<size_t>(slot)];
  if (buffer.size() < bytes) {
    buffer = AlignedBuffer();
    buffer = AlignedBuffer(bytes + bytes / 4);
  }
  return buffer.data();
}

}  // namespace scd::kernels::cpu
