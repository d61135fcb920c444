// A block takes a row: cosines and sines once, then every head with them.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/paged_kv.cuh"
#include "kernels/rope.cuh"

namespace scd::kernels::cuda {
namespace {

constexpr unsigned kThreads = 256;

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
