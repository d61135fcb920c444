// What every CUDA file of this folder needs: errors as exceptions, the queue, and 16-bit floats.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/matrix.h"
#include "kernels/paged_kv.h"

namespace scd::kernels::cuda {

// Throws std::runtime_error that names the op and what CUDA says.
void check(cudaError_t result, const char* what);

// The queue of the calling thread.
cudaStream_t stream();

// Memory of the calling thread, contents undefined, valid until it asks for the slot again; it grows and is kept.
enum class Slot {
  kLinearInput,
  kLinearOutput,
  kBlas,
  kAttentionPartials,
  kIndices,
  kKeys,
  kValues,
  kLogitChanges,
  kMoment,
  kColumnSums,
  kCount
};
std::byte* device_scratch(Slot slot, size_t bytes);

// The batch on the device: what came with it, or a copy made for this call.
const int32_t* on_device(const Indices& indices);
const DeviceSequences& on_device(const Sequences& sequences);

inline void check_launch(const char* op) { check(cudaGetLastError(), op); }

constexpr unsigned kMaxGridY = 65535;

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline void store(float value, float* to) { *to = value; }
__device__ inline void store(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

// Calls f with a null pointer of the element type that dtype means.
template <class F>
void with_type(DType dtype, F f) {
  switch (dtype) {
    case DType::kF32: f(static_cast<float*>(nullptr)); break;
    case DType::kBF16: f(static_cast<__nv_bfloat16*>(nullptr)); break;
    case DType::kF16: f(static_cast<__half*>(nullptr)); break;
  }
}

// Only F32 and BF16 are written: the contracts say so.
template <class F>
void with_output(DType dtype, F f) {
  if (dtype == DType::kF32) {
    f(static_cast<float*>(nullptr));
  } else {
    f(static_cast<__nv_bfloat16*>(nullptr));
  }
}

// Sum over the block, known to every thread. threads: a multiple of 32.
__device__ inline float block_sum(float value) {
  __shared__ float partial[32];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  const unsigned warp = threadIdx.x / 32;
  const unsigned warps = blockDim.x / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[warp] = value;
  __syncthreads();
  value = threadIdx.x % 32 < warps ? partial[threadIdx.x % 32] : 0.0f;
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

}  // namespace scd::kernels::cuda
