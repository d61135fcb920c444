// Memory for bytes on their way to a network, in one piece, so that a network card can be told of it once and at start:
// registering what is sent as it is sent costs a system call and a walk over its pages each time.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <utility>

namespace scd {

// Thread-safe. What finds no room in it is sent from ordinary memory.
class SendMemory {
 public:
  // That of the process, empty until it is reserved; never unmapped, since buffers may outlive everything.
  static SendMemory& of_process();

  SendMemory() = default;
  SendMemory(const SendMemory&) = delete;
  SendMemory& operator=(const SendMemory&) = delete;
  ~SendMemory();

  // Of address space: pages are taken as they are written, or when a network card is told of them. What was reserved
  // before stays, and no more is. False: there is not so much.
  bool reserve(size_t bytes);
  std::span<std::byte> region() const {
    std::byte* const memory = memory_.load(std::memory_order_acquire);
    return memory == nullptr ? std::span<std::byte>() : std::span(memory, size_);
  }

  // Null: nothing was reserved, or there is no room. Aligned to kAlignment.
  std::byte* take(size_t bytes);
  // False: it was not taken here. bytes: as they were asked for.
  bool give_back(std::byte* memory, size_t bytes);
  size_t taken_bytes() const;  // whole units of kAlignment

  static constexpr size_t kAlignment = 256;

 private:
  void add_free(size_t offset, size_t bytes);
  void remove_free(std::map<size_t, size_t>::iterator free);

  std::atomic<std::byte*> memory_ = nullptr;
  size_t size_ = 0;
  mutable std::mutex mutex_;
  size_t taken_ = 0;
  std::map<size_t, size_t> free_;                     // bytes, by offset; no two touch
  std::set<std::pair<size_t, size_t>> free_by_size_;  // bytes, offset
};

}  // namespace scd
