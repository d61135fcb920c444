// Memory of a GPU set aside in one piece for what steps work in, so that a server has it before it needs it. Buffers of
// Placement::workspace() are parts of it, taken and given back in any order by any thread. Servers that share a process
// share what they set aside.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>

namespace scd::kernels {

// What a part of a piece of memory takes: as cudaMalloc aligns.
constexpr size_t part_bytes(size_t bytes) {
  constexpr size_t kAlignment = 256;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Which bytes of a piece of memory are taken. Each part is cut from the smallest stretch that holds it, and joins its
// free neighbours when it is given back.
class FreeStretches {
 public:
  explicit FreeStretches(size_t bytes);
  std::optional<size_t> take(size_t bytes);  // where it begins; none: no stretch is as large
  void give_back(size_t begin);              // needs no memory
  size_t free_bytes() const { return free_bytes_; }

 private:
  std::map<size_t, size_t> stretches_, taken_;  // bytes by beginning
  size_t free_bytes_ = 0;
};

class GpuWorkspace {
 public:
  // 0 bytes: nothing is set aside. Throws OutOfDeviceMemory.
  explicit GpuWorkspace(size_t bytes);
  // No further parts come of it; the memory goes with the last of those there are.
  ~GpuWorkspace();
  GpuWorkspace(const GpuWorkspace&) = delete;
  GpuWorkspace& operator=(const GpuWorkspace&) = delete;

  size_t bytes() const;
  size_t used_bytes() const;

  struct Part {
    std::byte* data = nullptr;
    std::shared_ptr<void> owner;  // the last gives the part back, when all is done that its thread has queued
  };
  // Of any workspace of this process that has room; none: no workspace has.
  static std::optional<Part> part(size_t bytes);

 private:
  struct Piece;
  struct OfProcess;
  static OfProcess& of_process();
  std::shared_ptr<Piece> piece_;  // null: nothing
};

}  // namespace scd::kernels
