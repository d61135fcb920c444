#include "common/base/send_memory.h"

#include <sys/mman.h>

#include <iterator>

namespace scd {
namespace {

size_t whole_units(size_t bytes) {
  return (bytes + SendMemory::kAlignment - 1) / SendMemory::kAlignment * SendMemory::kAlignment;
}

}  // namespace

SendMemory& SendMemory::of_process() {
  static auto* const memory = new SendMemory;
  return *memory;
}

SendMemory::~SendMemory() {
  if (memory_ != nullptr) munmap(memory_, size_);
}

bool SendMemory::reserve(size_t bytes) {
  const std::scoped_lock lock(mutex_);
  if (memory_ != nullptr) return true;
  const size_t size = whole_units(bytes);
  if (size == 0) return true;
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return false;
  madvise(memory, size, MADV_HUGEPAGE);  // only a hint
  size_ = size;
  add_free(0, size);
  memory_.store(static_cast<std::byte*>(memory), std::memory_order_release);
  return true;
}

// The smallest place that is large enough, so that large ones last.
std::byte* SendMemory::take(size_t bytes) {
  std::byte* const memory = memory_.load(std::memory_order_acquire);
  if (memory == nullptr || bytes == 0) return nullptr;
  const size_t size = whole_units(bytes);
  const std::scoped_lock lock(mutex_);
  const auto found = free_by_size_.lower_bound({size, 0});
  if (found == free_by_size_.end()) return nullptr;
  const auto [free_bytes, offset] = *found;
  remove_free(free_.find(offset));
  if (free_bytes > size) add_free(offset + size, free_bytes - size);
  taken_ += size;
  return memory + offset;
}

bool SendMemory::give_back(std::byte* memory, size_t bytes) {
  const std::span<std::byte> all = region();
  if (all.data() == nullptr || memory < all.data() || memory >= all.data() + all.size()) return false;
  auto offset = static_cast<size_t>(memory - all.data());
  size_t size = whole_units(bytes);
  const std::scoped_lock lock(mutex_);
  taken_ -= size;
  const auto after = free_.lower_bound(offset);
  const auto before = after == free_.begin() ? free_.end() : std::prev(after);
  if (after != free_.end() && after->first == offset + size) {
    size += after->second;
    remove_free(after);
  }
  if (before != free_.end() && before->first + before->second == offset) {
    offset = before->first;
    size += before->second;
    remove_free(before);
  }
  add_free(offset, size);
  return true;
}

size_t SendMemory::taken_bytes() const {
  const std::scoped_lock lock(mutex_);
  return taken_;
}

void SendMemory::add_free(size_t offset, size_t bytes) {
  free_[offset] = bytes;
  free_by_size_.insert({bytes, offset});
}

void SendMemory::remove_free(std::map<size_t, size_t>::iterator free) {
  free_by_size_.erase({free->second, free->first});
  free_.erase(free);
}

}  // namespace scd
