// The tensor cores' BF16 product of one warp, from sm_80 on (PTX ISA, "mma.m16n8k16").
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace scd::kernels::cuda {

// c [16, 8] += a [16, 16] b [16, 8]. Of lane l with g = l / 4 and t = l % 4: a holds (g, 2t), (g + 8, 2t), (g, 2t + 8)
// and (g + 8, 2t + 8), each with its right neighbour; b (2t, g) and (2t + 8, g), each with the one below; c (g, 2t) and
// (g + 8, 2t), each with its right neighbour.
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t packed(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

}  // namespace scd::kernels::cuda
