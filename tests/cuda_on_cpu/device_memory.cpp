// A piece is closed until work on the device faults in it, and closed again when no work is under way: so a launch pays
// for the pieces it touches only.
#include "tests/cuda_on_cpu/device_memory.h"

#include <sanitizer/asan_interface.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <string_view>
#include <vector>

namespace scd::cuda_on_cpu {
namespace {

constexpr size_t kPage = 4096, kAlignment = 256;

struct Piece {
  std::byte* begin;
  size_t bytes;  // whole pages; one that nobody may touch follows
};

struct Memory {
  std::mutex mutex;
  size_t used = 0;
  std::map<const void*, Piece> pieces;  // by what was given out, which ends where the pages end
  std::vector<const void*> open;
  int works = 0;
  int shared_works = 0;
  struct sigaction former {};
  bool guarded = false;  // UCX may keep the signal to itself
};

thread_local int works_of_thread = 0;

size_t rounded_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

Memory& memory() {
  static auto* const made = new Memory;  // buffers of static storage are released late
  return *made;
}

void protect(const Piece& piece, int allowed) { mprotect(piece.begin, piece.bytes, allowed); }

// Only code outside this file faults in a piece, so the mutex is free.
void on_fault(int, siginfo_t* fault, void*) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  auto found = all.pieces.upper_bound(fault->si_addr);
  const auto* const at = static_cast<const std::byte*>(fault->si_addr);
  if (found != all.pieces.begin() && at < (--found)->second.begin + found->second.bytes &&
      (works_of_thread > 0 || all.shared_works > 0)) {
    protect(found->second, PROT_READ | PROT_WRITE);
    all.open.push_back(found->first);
    return;
  }
  if (found != all.pieces.end() && at >= found->second.begin &&
      at < found->second.begin + found->second.bytes + kPage) {
    constexpr std::string_view kSays =
        "CUDA on the CPU: the host touches memory of the device, or a kernel what follows it\n";
    static_cast<void>(!write(STDERR_FILENO, kSays.data(), kSays.size()));
  }
  sigaction(SIGSEGV, &all.former, nullptr);  // it faults again
}

void watch(Memory& all) {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &all.former);
  struct sigaction now {};
  sigaction(SIGSEGV, nullptr, &now);
  all.guarded = now.sa_sigaction == on_fault;
}

}  // namespace

void* allocate_device_memory(size_t bytes) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  if (all.pieces.empty() && !all.guarded) watch(all);
  const size_t pages = rounded_up(bytes, kPage);
  if (pages > kDeviceBytes - all.used) return nullptr;
  void* begin = mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED) return nullptr;
  std::memset(begin, kUnwritten, pages);
  const Piece piece{static_cast<std::byte*>(begin), pages};
  mprotect(piece.begin + pages, kPage, PROT_NONE);
  if (all.guarded) protect(piece, PROT_NONE);
  void* const given = piece.begin + pages - rounded_up(bytes, kAlignment);
  ASAN_POISON_MEMORY_REGION(static_cast<std::byte*>(given) + bytes, rounded_up(bytes, kAlignment) - bytes);
  all.used += pages;
  all.pieces[given] = piece;
  return given;
}

bool release_device_memory(void* given) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  const auto piece = all.pieces.find(given);
  if (piece == all.pieces.end()) return false;
  ASAN_UNPOISON_MEMORY_REGION(piece->second.begin, piece->second.bytes);
  munmap(piece->second.begin, piece->second.bytes + kPage);
  all.used -= piece->second.bytes;
  std::erase(all.open, given);
  all.pieces.erase(piece);
  return true;
}

bool is_device_memory(const void* memory) {
  Memory& all = scd::cuda_on_cpu::memory();
  const std::scoped_lock lock(all.mutex);
  const auto after = all.pieces.upper_bound(memory);
  if (after == all.pieces.begin()) return false;
  const Piece& piece = std::prev(after)->second;
  return static_cast<const std::byte*>(memory) < piece.begin + piece.bytes;
}

size_t free_device_memory() {
  const std::scoped_lock lock(memory().mutex);
  return kDeviceBytes - memory().used;
}

namespace {

struct PinnedMemory {
  std::mutex mutex;
  std::map<const void*, size_t> pieces;  // bytes of each, by where it begins
};

PinnedMemory& pinned_memory() {
  static auto* const made = new PinnedMemory;
  return *made;
}

}  // namespace

void* allocate_pinned_memory(size_t bytes) {
  void* memory = std::aligned_alloc(kPage, rounded_up(bytes, kPage));
  if (memory == nullptr) return nullptr;
  std::memset(memory, kUnwritten, bytes);
  const std::scoped_lock lock(pinned_memory().mutex);
  pinned_memory().pieces[memory] = bytes;
  return memory;
}

bool release_pinned_memory(void* memory) {
  {
    const std::scoped_lock lock(pinned_memory().mutex);
    if (pinned_memory().pieces.erase(memory) == 0) return false;
  }
  std::free(memory);
  return true;
}

bool is_pinned_memory(const void* memory) {
  const std::scoped_lock lock(pinned_memory().mutex);
  const auto after = pinned_memory().pieces.upper_bound(memory);
  if (after == pinned_memory().pieces.begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return static_cast<const std::byte*>(memory) < static_cast<const std::byte*>(begin) + bytes;
}

DeviceWork::DeviceWork() {
  const std::scoped_lock lock(memory().mutex);
  ++memory().works;
  ++works_of_thread;
}

SharedDeviceWork::SharedDeviceWork() {
  const std::scoped_lock lock(memory().mutex);
  ++memory().shared_works;
}

SharedDeviceWork::~SharedDeviceWork() {
  const std::scoped_lock lock(memory().mutex);
  --memory().shared_works;
}

DeviceWork::~DeviceWork() {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  --works_of_thread;
  if (--all.works > 0 || !all.guarded) return;
  for (const void* given : all.open) protect(all.pieces.at(given), PROT_NONE);
  all.open.clear();
}

}  // namespace scd::cuda_on_cpu
