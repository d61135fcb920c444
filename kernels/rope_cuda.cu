// A block takes a row: cosines and sines once (angles in double, as on the CPU), then every head with them.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/require.h"

namespace scd::kernels::cuda {
namespace {

constexpr int64_t kMaxPairs = 256;

struct Frequencies {
  float values[kMaxPairs];
};

__global__ void rope_kernel(float* x, int64_t stride, int64_t columns, int64_t pairs, const int32_t* positions,
                            __grid_constant__ const Frequencies frequencies, float cos_scale, float sin_scale) {
  __shared__ float cosines[kMaxPairs];
  __shared__ float sines[kMaxPairs];
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < pairs; i += blockDim.x) {
    const double angle = static_cast<double>(positions[row]) * static_cast<double>(frequencies.values[i]);
    double sine, cosine;
    sincos(angle, &sine, &cosine);
    cosines[i] = static_cast<float>(cosine) * cos_scale;
    sines[i] = static_cast<float>(sine) * sin_scale;
  }
  __syncthreads();
  const auto width = static_cast<unsigned>(pairs);
  const auto rotations = static_cast<unsigned>(columns / 2);
  for (unsigned index = threadIdx.x; index < rotations; index += blockDim.x) {
    const unsigned pair = index % width;
    float* head = x + row * stride + index / width * 2 * width;
    const float first = head[pair], second = head[pair + width];
    head[pair] = first * cosines[pair] - second * sines[pair];
    head[pair + width] = second * cosines[pair] + first * sines[pair];
  }
}

}  // namespace

void rope(Matrix x, int64_t head_dim, Indices positions, const RopeTable& table, RopeDirection direction) {
  const int64_t pairs = head_dim / 2;
  require(pairs <= kMaxPairs, "rope: heads of ", head_dim, " are wider than CUDA's kernel takes");
  Frequencies frequencies{};
  for (int64_t i = 0; i < pairs; ++i) frequencies.values[i] = table.inverse_frequencies[static_cast<size_t>(i)];
  const bool rotate = direction == RopeDirection::kRotate;
  const float cos_scale = rotate ? table.attention_scale : 1.0f / table.attention_scale;
  const float sin_scale = rotate ? cos_scale : -cos_scale;
  rope_kernel<<<static_cast<unsigned>(x.rows), 256, 0, stream()>>>(static_cast<float*>(x.data), x.row_stride, x.columns,
                                                                   pairs, on_device(positions), frequencies, cos_scale,
                                                                   sin_scale);
  check_launch("rope");
}

}  // namespace scd::kernels::cuda
