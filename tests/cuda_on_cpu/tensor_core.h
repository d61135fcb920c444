// What tensor cores do for a warp, and copies that a thread may forget to wait for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/cuda_on_cpu/block.h"

namespace scd::cuda_on_cpu {

// Fragments as kernels/tensor_core.cuh describes them.
struct MultiplyRecord {
  const uint32_t* a;
  uint32_t b[2];
  float* c;
};
extern const Meeting kMultiply;

struct LoadRecord {
  uint32_t address;
  uint32_t* to;
};
extern const Meeting kLoadMatrices, kLoadMatricesTransposed;

// Done no sooner than the thread waits, and what stood there is gone at once: who reads too early or too late shows.
class AsyncCopies {
 public:
  void add(uint32_t to, const void* from, bool valid);
  void commit() { ++group_; }
  void wait(uint64_t groups_left);

 private:
  friend AsyncCopies& copies_of_thread();
  struct Copy {
    uint32_t to;
    const void* from;  // null: zeros
    uint64_t group;
  };
  std::vector<Copy> copies_;
  uint64_t group_ = 0, block_ = 0;
};
AsyncCopies& copies_of_thread();

}  // namespace scd::cuda_on_cpu
