// Memory-bound copies between rows and pages: a block a row.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/paged_kv.cuh"

namespace scd::kernels::cuda {
namespace {

template <class Stored>
__global__ void write_kernel(Pool pool, unsigned width, DeviceSequences sequences, const float* keys,
                             int64_t key_stride, const float* values, int64_t value_stride, Stored* key_pages,
                             Stored* value_pages) {
  const int64_t row = blockIdx.x;
  const int32_t* page_ids = sequences.page_ids + sequences.row_sequence[row] * sequences.page_stride;
  const TokenPlace place(pool, page_ids, sequences.row_position[row]);
  for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
    store(keys[row * key_stride + column], key_pages + place.at(column));
    store(values[row * value_stride + column], value_pages + place.at(column));
  }
}

template <class Stored>
__global__ void read_kernel(Pool pool, unsigned width, const int32_t* page_ids, int64_t first_position,
                            const Stored* key_pages, const Stored* value_pages, float* keys, int64_t key_stride,
                            float* values, int64_t value_stride) {
  const int64_t row = blockIdx.x;
  const TokenPlace place(pool, page_ids, first_position + row);
  for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
    keys[row * key_stride + column] = to_float(key_pages[place.at(column)]);
    values[row * value_stride + column] = to_float(value_pages[place.at(column)]);
  }
}

Matrix scratch_like(const ConstMatrix& m, Slot slot) {
  const size_t bytes = static_cast<size_t>(m.rows * m.columns) * sizeof(float);
  return {device_scratch(slot, bytes), m.rows, m.columns, m.columns, DType::kF32, Device::kCuda};
}

ConstMatrix brought(const ConstMatrix& m, Slot slot) {
  if (m.device == Device::kCuda) return m;
  const Matrix there = scratch_like(m, slot);
  cuda::copy(m, there);
  return there;
}

constexpr unsigned kThreads = 256;

}  // namespace

void write_kv(const PagedKv& kv, Sequences sequences, ConstMatrix keys, ConstMatrix values) {
  const DeviceSequences& batch = on_device(sequences);
  keys = brought(keys, Slot::kKeys);
  values = brought(values, Slot::kValues);
  const Pool pool{kv.kv_heads, kv.page_tokens, kv.head_dim};
  const auto grid = static_cast<unsigned>(keys.rows);
  const auto* k = static_cast<const float*>(keys.data);
  const auto* v = static_cast<const float*>(values.data);
  if (kv.dtype == DType::kF32) {
    write_kernel<<<grid, kThreads, 0, stream()>>>(pool, pool.width(), batch, k, keys.row_stride, v, values.row_stride,
                                                  static_cast<float*>(kv.keys), static_cast<float*>(kv.values));
  } else {
    write_kernel<<<grid, kThreads, 0, stream()>>>(pool, pool.width(), batch, k, keys.row_stride, v, values.row_stride,
                                                  static_cast<__nv_bfloat16*>(kv.keys),
                                                  static_cast<__nv_bfloat16*>(kv.values));
  }
  check_launch("write_kv");
}

void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values) {
  const bool to_host = keys.device == Device::kCpu;
  const Matrix k = to_host ? scratch_like(keys, Slot::kKeys) : keys;
  const Matrix v = to_host ? scratch_like(values, Slot::kValues) : values;
  const int32_t* page_ids = on_device(Indices(sequence.page_ids));
  const Pool pool{kv.kv_heads, kv.page_tokens, kv.head_dim};
  const auto grid = static_cast<unsigned>(sequence.rows);
  auto* k_to = static_cast<float*>(k.data);
  auto* v_to = static_cast<float*>(v.data);
  if (kv.dtype == DType::kF32) {
    read_kernel<<<grid, kThreads, 0, stream()>>>(
        pool, pool.width(), page_ids, sequence.first_position, static_cast<const float*>(kv.keys),
        static_cast<const float*>(kv.values), k_to, k.row_stride, v_to, v.row_stride);
  } else {
    read_kernel<<<grid, kThreads, 0, stream()>>>(
        pool, pool.width(), page_ids, sequence.first_position, static_cast<const __nv_bfloat16*>(kv.keys),
        static_cast<const __nv_bfloat16*>(kv.values), k_to, k.row_stride, v_to, v.row_stride);
  }
  check_launch("read_kv");
  if (to_host) {
    cuda::copy(k, keys);
    cuda::copy(v, values);
  }
}

}  // namespace scd::kernels::cuda
