#include "common/codec/block_memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>
#include <vector>

namespace scd {
namespace {

// Of a thread: pieces in powers of two, each used again for what has its size.
class BlockMemory {
 public:
  static std::shared_ptr<const kernels::DeviceBuffer> of(size_t bytes) {
    const size_t size = std::bit_ceil(std::max(bytes, kSmallest));
    std::vector<kernels::DeviceBuffer>& unused = mine().unused_[static_cast<size_t>(std::countr_zero(size))];
    kernels::DeviceBuffer memory;
    if (unused.empty()) {
      memory = mine().fresh(size);
    } else {
      memory = std::move(unused.back());
      unused.pop_back();
      mine().kept_bytes_ -= size;
    }
    return {new kernels::DeviceBuffer(std::move(memory)), [](kernels::DeviceBuffer* used) {
              mine().keep(std::move(*used));
              delete used;
            }};
  }

 private:
  static constexpr size_t kSmallest = size_t{1} << 16;
  static constexpr size_t kMostKept = size_t{1} << 30;

  static BlockMemory& mine() {
    thread_local BlockMemory memory;
    return memory;
  }
  // What is kept makes room where there is none.
  kernels::DeviceBuffer fresh(size_t size) {
    try {
      return {kernels::Device::kCuda, size};
    } catch (const kernels::OutOfDeviceMemory&) {
      unused_ = {};
      kept_bytes_ = 0;
      return {kernels::Device::kCuda, size};
    }
  }
  void keep(kernels::DeviceBuffer memory) {
    if (kept_bytes_ + memory.size() > kMostKept) return;
    kept_bytes_ += memory.size();
    unused_[static_cast<size_t>(std::countr_zero(memory.size()))].push_back(std::move(memory));
  }

  std::array<std::vector<kernels::DeviceBuffer>, 64> unused_;
  size_t kept_bytes_ = 0;
};

}  // namespace

std::shared_ptr<const kernels::DeviceBuffer> block_memory(size_t bytes) { return BlockMemory::of(bytes); }

}  // namespace scd
