// A position's turns in shared memory: cosines and sines once a block (angles in double, as on the CPU).
#pragma once

#include <cstdint>

#include "kernels/require.h"
#include "kernels/rope.h"

namespace scd::kernels::cuda {

constexpr int64_t kMaxPairs = 256;

// Angles of a position, and what their cosines and sines are multiplied by.
struct Rotation {
  float frequencies[kMaxPairs];
  unsigned pairs;
  float cos_scale, sin_scale;
};

inline Rotation rotation_of(int64_t head_dim, const RopeTable& table, RopeDirection direction) {
  const int64_t pairs = head_dim / 2;
  require(pairs <= kMaxPairs, "rope: heads of ", head_dim, " are wider than CUDA's kernel takes");
  Rotation rotation{};
  for (int64_t i = 0; i < pairs; ++i) rotation.frequencies[i] = table.inverse_frequencies[static_cast<size_t>(i)];
  const bool rotate = direction == RopeDirection::kRotate;
  rotation.pairs = static_cast<unsigned>(pairs);
  rotation.cos_scale = rotate ? table.attention_scale : 1.0f / table.attention_scale;
  rotation.sin_scale = rotate ? rotation.cos_scale : -rotation.cos_scale;
  return rotation;
}

// Of one position, in shared memory; all threads of the block.
struct Turns {
  float cosines[kMaxPairs];
  float sines[kMaxPairs];

  __device__ void fill(const Rotation& rotation, int32_t position) {
    for (unsigned i = threadIdx.x; i < rotation.pairs; i += blockDim.x) {
      double sine, cosine;
      sincos(static_cast<double>(position) * static_cast<double>(rotation.frequencies[i]), &sine, &cosine);
      cosines[i] = static_cast<float>(cosine) * rotation.cos_scale;
      sines[i] = static_cast<float>(sine) * rotation.sin_scale;
    }
    __syncthreads();
  }
  __device__ float2 turned(float first, float second, unsigned pair) const {
    return make_float2(first * cosines[pair] - second * sines[pair], second * cosines[pair] + first * sines[pair]);
  }
};

}  // namespace scd::kernels::cuda
