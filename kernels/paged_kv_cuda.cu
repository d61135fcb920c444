// Memory-bound copies between rows and pages: a block a row.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/paged_kv.cuh"

namespace scd::kernels::cuda {
namespace {

// As number.h rounds, NaN included: what goes out has the bits that the CPU gives it.
__device__ inline void store_row(float value, float* to) { *to = value; }
__device__ inline void store_row(float value, __nv_bfloat16* to) {
  const uint32_t bits = __float_as_uint(value);
  const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
  const uint32_t rounded = is_nan ? bits >> 16 | 0x40U : (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
  *to = __ushort_as_bfloat16(static_cast<unsigned short>(rounded));
}

template <class Row, class Stored>
__global__ void write_kernel(Pool pool, unsigned width, DeviceSequences sequences, const Row* keys, int64_t key_stride,
                             const Row* values, int64_t value_stride, Stored* key_pages, Stored* value_pages) {
  const int64_t row = blockIdx.x;
  const int32_t* page_ids = sequences.page_ids + sequences.row_sequence[row] * sequences.page_stride;
  const TokenPlace place(pool, page_ids, sequences.row_position[row]);
  for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
    store(to_float(keys[row * key_stride + column]), key_pages + place.at(column));
    store(to_float(values[row * value_stride + column]), value_pages + place.at(column));
  }
}

template <class Row, class Stored>
__global__ void read_kernel(Pool pool, unsigned width, const int32_t* page_ids, int64_t first_position,
                            const Stored* key_pages, const Stored* value_pages, Row* keys, int64_t key_stride,
                            Row* values, int64_t value_stride) {
  const int64_t row = blockIdx.x;
  const TokenPlace place(pool, page_ids, first_position + row);
  for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
    store_row(to_float(key_pages[place.at(column)]), keys + row * key_stride + column);
    store_row(to_float(value_pages[place.at(column)]), values + row * value_stride + column);
  }
}

Matrix scratch_like(const ConstMatrix& m, Slot slot) {
  const size_t bytes = static_cast<size_t>(m.rows * m.columns) * size_of(m.dtype);
  return {device_scratch(slot, bytes), m.rows, m.columns, m.columns, m.dtype, Device::kGpu};
}

ConstMatrix brought(const ConstMatrix& m, Slot slot) {
  if (m.device == Device::kGpu) return m;
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
  with_output(keys.dtype, [&]<class Row>(Row*) {
    with_output(kv.dtype, [&]<class Stored>(Stored*) {
      write_kernel<<<static_cast<unsigned>(keys.rows), kThreads, 0, stream()>>>(
          pool, pool.width(), batch, static_cast<const Row*>(keys.data), keys.row_stride,
          static_cast<const Row*>(values.data), values.row_stride, static_cast<Stored*>(kv.keys),
          static_cast<Stored*>(kv.values));
    });
  });
  check_launch("write_kv");
}

void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values) {
  const bool to_host = keys.device == Device::kCpu;
  const Matrix k = to_host ? scratch_like(keys, Slot::kKeys) : keys;
  const Matrix v = to_host ? scratch_like(values, Slot::kValues) : values;
  const int32_t* page_ids = on_device(Indices(sequence.page_ids));
  const Pool pool{kv.kv_heads, kv.page_tokens, kv.head_dim};
  with_output(k.dtype, [&]<class Row>(Row*) {
    with_output(kv.dtype, [&]<class Stored>(Stored*) {
      read_kernel<<<static_cast<unsigned>(sequence.rows), kThreads, 0, stream()>>>(
          pool, pool.width(), page_ids, sequence.first_position, static_cast<const Stored*>(kv.keys),
          static_cast<const Stored*>(kv.values), static_cast<Row*>(k.data), k.row_stride, static_cast<Row*>(v.data),
          v.row_stride);
    });
  });
  check_launch("read_kv");
  if (to_host) {
    cuda::copy(k, keys);
    cuda::copy(v, values);
  }
}

}  // namespace scd::kernels::cuda
