// Scratch memory that only grows: a pass of the same size as one before allocates nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "kernels/matrix.h"

namespace scd {

// Contents are undefined after each call. Cache-line aligned.
class GrowBuffer {
 public:
  kernels::Matrix matrix(int64_t rows, int64_t columns, kernels::DType dtype = kernels::DType::kF32) {
    return {reserve(static_cast<size_t>(rows * columns) * kernels::size_of(dtype)), rows, columns, columns, dtype};
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
  };
  std::byte* reserve(size_t bytes) {
    if (bytes > capacity_) {
      memory_.reset();  // before the larger one exists: peaks matter more than the copy that is not needed
      memory_.reset(new (std::align_val_t{64}) std::byte[bytes]);
      capacity_ = bytes;
    }
    return memory_.get();
  }
  std::unique_ptr<std::byte[], Free> memory_;
  size_t capacity_ = 0;
};

}  // namespace scd
