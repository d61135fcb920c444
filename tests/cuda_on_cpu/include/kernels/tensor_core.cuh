// Stands before kernels/tensor_core.cuh: the same functions without PTX.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "tests/cuda_on_cpu/tensor_core.h"

namespace scd::kernels::cuda {

using cuda_on_cpu::shared_address;

inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  cuda_on_cpu::MultiplyRecord record{a, {b0, b1}, c};
  cuda_on_cpu::meet(cuda_on_cpu::kMultiply, 0xffffffffu, &record);
}

inline uint32_t packed(float low, float high) { return std::bit_cast<uint32_t>(__floats2bfloat162_rn(low, high)); }

inline void load_matrices(uint32_t (&to)[4], uint32_t address) {
  cuda_on_cpu::LoadRecord record{address, to};
  cuda_on_cpu::meet(cuda_on_cpu::kLoadMatrices, 0xffffffffu, &record);
}
inline void load_matrices_transposed(uint32_t (&to)[4], uint32_t address) {
  cuda_on_cpu::LoadRecord record{address, to};
  cuda_on_cpu::meet(cuda_on_cpu::kLoadMatricesTransposed, 0xffffffffu, &record);
}

inline void copy_async(uint32_t to, const void* from, bool valid) {
  cuda_on_cpu::copies_of_thread().add(to, from, valid);
}
inline void commit_copies() { cuda_on_cpu::copies_of_thread().commit(); }
template <int kLeft>
void wait_copies() {
  cuda_on_cpu::copies_of_thread().wait(kLeft);
}

}  // namespace scd::kernels::cuda
