// Which form of attention runs, and the one that takes any shape.
#include "kernels/attention_cuda.h"

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/require.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kThreads = 128;  // keys of a step
constexpr int64_t kMaxHeadDim = 512;
constexpr int kElements = static_cast<int>(kMaxHeadDim) / kThreads;

struct Shape {
  int64_t query_heads, kv_heads, head_dim, page_tokens, sliding_window;
  float scale;
};

__device__ float block_max(float value) {
  __shared__ float partial[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  for (int i = 0; i < kThreads / 32; ++i) value = fmaxf(value, partial[i]);
  return value;
}

template <class Stored, class Out>
__global__ void any_kernel(Shape shape, DeviceSequences sequences, const float* queries, int64_t query_stride,
                           const Stored* keys, const Stored* values, Out* output, int64_t output_stride) {
  __shared__ float query[kMaxHeadDim];
  __shared__ float weights[kThreads];
  const int64_t row = blockIdx.x;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / (shape.query_heads / shape.kv_heads);
  const int32_t* page_ids = sequences.page_ids + sequences.row_sequence[row] * sequences.page_stride;
  const int64_t position = sequences.row_position[row];
  const int64_t first =
      shape.sliding_window > 0 && position >= shape.sliding_window ? position - shape.sliding_window + 1 : 0;
  for (int64_t i = threadIdx.x; i < shape.head_dim; i += kThreads) {
    query[i] = queries[row * query_stride + head * shape.head_dim + i] * shape.scale;
  }
  __syncthreads();
  const auto slice = [&](int64_t at) {
    const int64_t page = page_ids[at / shape.page_tokens];
    return ((page * shape.kv_heads + kv_head) * shape.page_tokens + at % shape.page_tokens) * shape.head_dim;
  };
  float largest = -INFINITY, total = 0.0f;
  float mixed[kElements] = {};
  for (int64_t begin = first; begin <= position; begin += kThreads) {
    const int64_t own = begin + threadIdx.x;
    float score = -INFINITY;
    if (own <= position) {
      const Stored* key = keys + slice(own);
      score = 0.0f;
      for (int64_t i = 0; i < shape.head_dim; ++i) score += query[i] * to_float(key[i]);
    }
    const float new_largest = fmaxf(largest, block_max(score));
    const float shrink = expf(largest - new_largest);
    const float weight = expf(score - new_largest);
    largest = new_largest;
    weights[threadIdx.x] = weight;
    total = total * shrink + block_sum(weight);  // its barriers publish the weights
    const int64_t count = min(int64_t{kThreads}, position - begin + 1);
    for (int e = 0; e < kElements; ++e) {
      const int64_t i = threadIdx.x + int64_t{e} * kThreads;
      if (i >= shape.head_dim) break;
      float sum = mixed[e] * shrink;
      for (int64_t k = 0; k < count; ++k) sum += weights[k] * to_float(values[slice(begin + k) + i]);
      mixed[e] = sum;
    }
    __syncthreads();
  }
  for (int e = 0; e < kElements; ++e) {
    const int64_t i = threadIdx.x + int64_t{e} * kThreads;
    if (i < shape.head_dim) store(mixed[e] / total, output + row * output_stride + head * shape.head_dim + i);
  }
}

}  // namespace

void attention_any(const AttentionArgs& args, const DeviceSequences& sequences) {
  require(args.kv.head_dim <= kMaxHeadDim, "paged_attention: heads of ", args.kv.head_dim,
          " are wider than CUDA's kernel takes");
  const Shape shape{args.query_heads,    args.kv.kv_heads,    args.kv.head_dim,
                    args.kv.page_tokens, args.sliding_window, args.scale};
  const dim3 grid(static_cast<unsigned>(args.queries.rows), static_cast<unsigned>(args.query_heads));
  const auto launch = [&](auto* stored, auto* out) {
    using Stored = std::remove_pointer_t<decltype(stored)>;
    using Out = std::remove_pointer_t<decltype(out)>;
    any_kernel<<<grid, kThreads, 0, stream()>>>(shape, sequences, static_cast<const float*>(args.queries.data),
                                                args.queries.row_stride, static_cast<const Stored*>(args.kv.keys),
                                                static_cast<const Stored*>(args.kv.values),
                                                static_cast<Out*>(args.output.data), args.output.row_stride);
  };
  const auto with_output = [&](auto* stored) {
    if (args.output.dtype == DType::kF32) {
      launch(stored, static_cast<float*>(nullptr));
    } else {
      launch(stored, static_cast<__nv_bfloat16*>(nullptr));
    }
  };
  if (args.kv.dtype == DType::kF32) {
    with_output(static_cast<float*>(nullptr));
  } else {
    with_output(static_cast<__nv_bfloat16*>(nullptr));
  }
  check_launch("paged_attention");
}

void paged_attention(const AttentionArgs& args) {
  const DeviceSequences& sequences = on_device(args.sequences);
  if (takes_rows(args, sequences)) {
    attention_rows(args, sequences);
  } else if (takes_warpgroups(args)) {
    attention_warpgroups(args, sequences);
  } else if (takes_tiles(args)) {
    attention_tiles(args, sequences);
  } else {
    attention_any(args, sequences);
  }
}

}  // namespace scd::kernels::cuda
