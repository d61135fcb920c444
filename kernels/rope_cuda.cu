// A block takes a row: cosines and sines once (angles in double, as on the CPU), then every head with them.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/paged_kv.cuh"
#include "kernels/require.h"

namespace scd::kernels::cuda {
namespace {

constexpr int64_t kMaxPairs = 256;
constexpr unsigned kThreads = 256;

// Angles of a position, and what their cosines and sines are multiplied by.
struct Rotation {
  float frequencies[kMaxPairs];
  unsigned pairs;
  float cos_scale, sin_scale;
};

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

__device__ void rotate_heads(float* row, unsigned columns, const Turns& turns, unsigned pairs) {
  for (unsigned index = threadIdx.x; index < columns / 2; index += blockDim.x) {
    const unsigned pair = index % pairs;
    float* head = row + index / pairs * 2 * pairs;
    const float2 result = turns.turned(head[pair], head[pair + pairs], pair);
    head[pair] = result.x;
    head[pair + pairs] = result.y;
  }
}

__global__ void rope_kernel(float* x, int64_t stride, unsigned columns, const int32_t* positions,
                            __grid_constant__ const Rotation rotation) {
  __shared__ Turns turns;
  turns.fill(rotation, positions[blockIdx.x]);
  rotate_heads(x + blockIdx.x * stride, columns, turns, rotation.pairs);
}

// A row is [queries | keys | values]; keys and values go to its token's place in the pages.
template <class Stored>
__global__ void rope_write_kernel(float* qkv, int64_t stride, unsigned query_columns, Pool pool,
                                  DeviceSequences sequences, Stored* key_pages, Stored* value_pages,
                                  __grid_constant__ const Rotation rotation) {
  __shared__ Turns turns;
  const int64_t row = blockIdx.x;
  const int32_t position = sequences.row_position[row];
  turns.fill(rotation, position);
  float* const queries = qkv + row * stride;
  rotate_heads(queries, query_columns, turns, rotation.pairs);
  const TokenPlace place(pool, sequences.page_ids + sequences.row_sequence[row] * sequences.page_stride, position);
  const unsigned width = pool.width();
  const float* const keys = queries + query_columns;
  const float* const values = keys + width;
  for (unsigned index = threadIdx.x; index < width / 2; index += blockDim.x) {
    const unsigned pair = index % rotation.pairs;
    const unsigned column = index / rotation.pairs * 2 * rotation.pairs + pair;
    const float2 result = turns.turned(keys[column], keys[column + rotation.pairs], pair);
    store(result.x, key_pages + place.at(column));
    store(result.y, key_pages + place.at(column + rotation.pairs));
  }
  for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
    store(values[column], value_pages + place.at(column));
  }
}

Rotation rotation_of(int64_t head_dim, const RopeTable& table, RopeDirection direction) {
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

}  // namespace

void rope(Matrix x, int64_t head_dim, Indices positions, const RopeTable& table, RopeDirection direction) {
  rope_kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream()>>>(
      static_cast<float*>(x.data), x.row_stride, static_cast<unsigned>(x.columns), on_device(positions),
      rotation_of(head_dim, table, direction));
  check_launch("rope");
}

void rope_write_kv(const PagedKv& kv, Sequences sequences, const RopeTable& table, Matrix qkv) {
  const DeviceSequences& batch = on_device(sequences);
  const Pool pool{kv.kv_heads, kv.page_tokens, kv.head_dim};
  const auto grid = static_cast<unsigned>(qkv.rows);
  const auto query_columns = static_cast<unsigned>(qkv.columns) - 2 * pool.width();
  const Rotation rotation = rotation_of(kv.head_dim, table, RopeDirection::kRotate);
  auto* const rows = static_cast<float*>(qkv.data);
  if (kv.dtype == DType::kF32) {
    rope_write_kernel<<<grid, kThreads, 0, stream()>>>(rows, qkv.row_stride, query_columns, pool, batch,
                                                       static_cast<float*>(kv.keys), static_cast<float*>(kv.values),
                                                       rotation);
  } else {
    rope_write_kernel<<<grid, kThreads, 0, stream()>>>(rows, qkv.row_stride, query_columns, pool, batch,
                                                       static_cast<__nv_bfloat16*>(kv.keys),
                                                       static_cast<__nv_bfloat16*>(kv.values), rotation);
  }
  check_launch("rope_write_kv");
}

}  // namespace scd::kernels::cuda
