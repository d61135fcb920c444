#include "common/codec/block_memory.h"

#include <utility>

#include "kernels/kept.h"

namespace scd {
namespace {

// Of a thread: pieces in powers of two, each used again for what has about its size.
kernels::Kept<kernels::DeviceBuffer>& unused() {
  thread_local kernels::Kept<kernels::DeviceBuffer> pieces(kernels::kMostKeptBytes);
  return pieces;
}

// What is kept makes room where there is none.
kernels::DeviceBuffer piece(size_t size) {
  if (auto found = unused().take(size)) return std::move(found->one);
  try {
    return {kernels::Placement::workspace(kernels::Device::kGpu), size};
  } catch (const kernels::OutOfDeviceMemory&) {
    unused().clear();
    return {kernels::Placement::workspace(kernels::Device::kGpu), size};
  }
}

}  // namespace

std::shared_ptr<const kernels::DeviceBuffer> block_memory(size_t bytes) {
  return {new kernels::DeviceBuffer(piece(kernels::kept_size(bytes))), [](kernels::DeviceBuffer* used) {
            const std::unique_ptr<kernels::DeviceBuffer> last(used);
            unused().keep(std::move(*used), used->size(), used->size());
          }};
}

}  // namespace scd
