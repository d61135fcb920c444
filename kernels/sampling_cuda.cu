// The greedy id of each row: a block a row.
#include <cmath>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kThreads = 1024;

struct Candidate {
  float logit;
  int32_t id;
};

// Larger logits first, smaller ids among equals.
__device__ Candidate better(Candidate a, Candidate b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id) ? a : b;
}

__device__ Candidate warp_best(Candidate best) {
  for (int offset = 16; offset > 0; offset /= 2) {
    best =
        better(best, {__shfl_xor_sync(0xffffffffu, best.logit, offset), __shfl_xor_sync(0xffffffffu, best.id, offset)});
  }
  return best;
}

__global__ void argmax_kernel(const float* logits, int64_t stride, int vocab, int32_t* ids) {
  __shared__ Candidate of_warp[kThreads / 32];
  const float* row = logits + blockIdx.x * stride;
  Candidate best{-INFINITY, 0};
  for (int id = threadIdx.x; id < vocab; id += kThreads) {
    const float logit = row[id];
    best = better(best, {isnan(logit) ? -INFINITY : logit, id});
  }
  best = warp_best(best);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x < 32) {
    best = warp_best(of_warp[threadIdx.x]);
    if (threadIdx.x == 0) ids[blockIdx.x] = best.id;
  }
}

}  // namespace

void argmax(ConstMatrix logits, std::span<int32_t> ids) {
  auto* there = reinterpret_cast<int32_t*>(device_scratch(Slot::kArgmax, ids.size_bytes()));
  argmax_kernel<<<static_cast<unsigned>(logits.rows), kThreads, 0, stream()>>>(
      static_cast<const float*>(logits.data), logits.row_stride, static_cast<int>(logits.columns), there);
  check_launch("argmax");
  check(cudaMemcpyAsync(ids.data(), there, ids.size_bytes(), cudaMemcpyDeviceToHost, stream()), "argmax");
  synchronize();
}

}  // namespace scd::kernels::cuda
