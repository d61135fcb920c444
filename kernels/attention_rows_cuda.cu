// Attention of decoding: one row a sequence, bounded by reading the cache once. A block takes a sequence's KV head and
// a part of its context, with all query heads that share it; a second kernel merges the parts (Dao et al. 2023,
// "Flash-Decoding").
#include <algorithm>
#include <bit>

#include "kernels/attention_cuda.h"
#include "kernels/cuda_common.cuh"
#include "kernels/device.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kStepKeys = 32;  // keys a warp scores before it adds their values
constexpr int kMaxGroup = 8;
constexpr int kMaxParts = 64;  // whole warps
constexpr int kBlocksPerProcessor = 8;
constexpr float kLog2E = 1.44269504f;

struct Rows {
  DeviceSequences sequences;
  const float* queries;
  int64_t query_stride;
  const __nv_bfloat16* keys;
  const __nv_bfloat16* values;
  int64_t kv_heads;
  int page_shift;  // tokens of a page: a power of two
  int64_t sliding_window;
  float scale;  // times log2(e): weights are powers of two
};

// Of a part: [rows, query_heads, parts] largest score and total weight, then the mixed values [.., head_dim].
struct Partials {
  float* largest;
  float* total;
  float* mixed;
};

// 8 neighbouring BF16 values.
struct Eight {
  float values[8];
};
__device__ Eight load_eight(const __nv_bfloat16* from) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
  Eight result;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    result.values[2 * i] = __uint_as_float(words[i] << 16);
    result.values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
  return result;
}

template <int kHeadDim, int kGroup>
__global__ void __launch_bounds__(kThreads) rows_kernel(Rows args, Partials partials) {
  constexpr int kLanes = kHeadDim / 8;  // lanes that hold a key
  constexpr int kKeys = 32 / kLanes;    // keys that a warp holds at once
  __shared__ float weights[kWarps][kGroup][kStepKeys];
  __shared__ float merged[kWarps][kGroup][kHeadDim];
  __shared__ float merged_largest[kWarps][kGroup];
  __shared__ float merged_total[kWarps][kGroup];
  const int64_t row = blockIdx.z, kv_head = blockIdx.y, part = blockIdx.x, parts = gridDim.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int element = lane % kLanes * 8, slot = lane / kLanes;
  const int32_t* page_ids = args.sequences.page_ids + row * args.sequences.page_stride;
  const int64_t position = args.sequences.first_position[row];
  const int64_t visible =
      args.sliding_window > 0 && position >= args.sliding_window ? position - args.sliding_window + 1 : 0;
  constexpr int64_t kBlockKeys = kWarps * kStepKeys;
  const int64_t part_keys = ((position + 1 - visible + parts - 1) / parts + kBlockKeys - 1) / kBlockKeys * kBlockKeys;
  const int64_t begin = visible + part * part_keys;
  const int64_t end = min(begin + part_keys, position + 1);
  if (begin >= end) {  // of a short context
    if (threadIdx.x < kGroup) {
      const int64_t at = ((row * args.kv_heads + kv_head) * kGroup + threadIdx.x) * parts + part;
      partials.largest[at] = -INFINITY;
      partials.total[at] = 0.0f;
    }
    return;
  }

  float query[kGroup][8];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    const float* from = args.queries + row * args.query_stride + (kv_head * kGroup + g) * kHeadDim + element;
#pragma unroll
    for (int i = 0; i < 8; ++i) query[g][i] = from[i] * args.scale;
  }
  float largest[kGroup], total[kGroup], mixed[kGroup][8];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    largest[g] = -INFINITY;
    total[g] = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) mixed[g][i] = 0.0f;
  }
  const auto slice = [&](int64_t at) {
    const int64_t page = page_ids[at >> args.page_shift];
    const int64_t in_page = at & ((int64_t{1} << args.page_shift) - 1);
    return (((page * args.kv_heads + kv_head) << args.page_shift) + in_page) * kHeadDim + element;
  };
  for (int64_t first = begin + warp * kStepKeys; first < end; first += kBlockKeys) {
    const int count = static_cast<int>(min(int64_t{kStepKeys}, end - first));
#pragma unroll 8
    for (int k = 0; k < kStepKeys; k += kKeys) {
      const int own = k + slot;
      const Eight key = load_eight(args.keys + slice(first + min(own, count - 1)));
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
        float score = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) score += query[g][i] * key.values[i];
#pragma unroll
        for (int offset = kLanes / 2; offset > 0; offset /= 2) score += __shfl_xor_sync(0xffffffffu, score, offset);
        if (lane % kLanes == 0) weights[warp][g][own] = own < count ? score : -INFINITY;
      }
    }
    __syncwarp();
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float score = weights[warp][g][lane];
      float top = score;
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, offset));
      top = fmaxf(top, largest[g]);
      const float shrink = exp2f(largest[g] - top);
      const float weight = exp2f(score - top);
      largest[g] = top;
      total[g] = total[g] * shrink + weight;  // of this lane's keys
      weights[warp][g][lane] = weight;
#pragma unroll
      for (int i = 0; i < 8; ++i) mixed[g][i] *= shrink;
    }
    __syncwarp();
#pragma unroll 8
    for (int k = 0; k < kStepKeys; k += kKeys) {
      const int own = k + slot;
      const Eight value = load_eight(args.values + slice(first + min(own, count - 1)));
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
        const float weight = weights[warp][g][own];
#pragma unroll
        for (int i = 0; i < 8; ++i) mixed[g][i] += weight * value.values[i];
      }
    }
    __syncwarp();
  }

  // The lanes of a warp, then the warps.
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) total[g] += __shfl_xor_sync(0xffffffffu, total[g], offset);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int offset = 16; offset >= kLanes; offset /= 2) {
        mixed[g][i] += __shfl_xor_sync(0xffffffffu, mixed[g][i], offset);
      }
    }
    if (lane < kLanes) {
#pragma unroll
      for (int i = 0; i < 8; ++i) merged[warp][g][element + i] = mixed[g][i];
    }
    if (lane == 0) {
      merged_largest[warp][g] = largest[g];
      merged_total[warp][g] = total[g];
    }
  }
  __syncthreads();
  for (int index = threadIdx.x; index < kGroup * kHeadDim; index += kThreads) {
    const int g = index / kHeadDim, i = index % kHeadDim;
    float top = -INFINITY, sum = 0.0f, weight_sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, merged_largest[w][g]);
    for (int w = 0; w < kWarps; ++w) {
      const float weight = merged_total[w][g] > 0.0f ? exp2f(merged_largest[w][g] - top) : 0.0f;
      sum += weight * merged[w][g][i];
      weight_sum += weight * merged_total[w][g];
    }
    const int64_t at = ((row * args.kv_heads + kv_head) * kGroup + g) * parts + part;
    partials.mixed[at * kHeadDim + i] = sum;
    if (i == 0) {
      partials.largest[at] = top;
      partials.total[at] = weight_sum;
    }
  }
}

// The first warp weighs the parts, then a thread adds up an element of each that has keys.
template <class Out>
__global__ void merge_kernel(Partials partials, int parts, int64_t head_dim, Out* output, int64_t output_stride) {
  constexpr int kEach = kMaxParts / 32;
  __shared__ float weights[kMaxParts];
  __shared__ int used;
  const int64_t row = blockIdx.y, head = blockIdx.x;
  const int64_t first = (row * gridDim.x + head) * parts;
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < 32) {
    float largest[kEach], total[kEach], top = -INFINITY, sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int part = 32 * j + lane;
      largest[j] = part < parts ? partials.largest[first + part] : -INFINITY;
      total[j] = part < parts ? partials.total[first + part] : 0.0f;
      top = fmaxf(top, largest[j]);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, offset));
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      largest[j] = total[j] > 0.0f ? exp2f(largest[j] - top) : 0.0f;
      sum += largest[j] * total[j];
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    int last = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      weights[32 * j + lane] = largest[j] / sum;
      const unsigned with_keys = __ballot_sync(0xffffffffu, total[j] != 0.0f);  // of NaN, too
      if (with_keys != 0) last = 32 * j + 32 - __clz(static_cast<int>(with_keys));
    }
    if (lane == 0) used = last;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < head_dim; i += blockDim.x) {
    float sum = 0.0f;
#pragma unroll 8
    for (int p = 0; p < used; ++p) sum += weights[p] * partials.mixed[(first + p) * head_dim + i];
    store(sum, output + row * output_stride + head * head_dim + i);
  }
}

template <int kHeadDim>
void launch_group(int64_t group, const dim3& grid, const Rows& rows, const Partials& partials) {
  switch (group) {
    case 1: rows_kernel<kHeadDim, 1><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
    case 2: rows_kernel<kHeadDim, 2><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
    case 3: rows_kernel<kHeadDim, 3><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
    case 4: rows_kernel<kHeadDim, 4><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
    case 5: rows_kernel<kHeadDim, 5><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
    case 6: rows_kernel<kHeadDim, 6><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
    case 7: rows_kernel<kHeadDim, 7><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
    default: rows_kernel<kHeadDim, 8><<<grid, kThreads, 0, stream()>>>(rows, partials); break;
  }
}

}  // namespace

bool takes_rows(const AttentionArgs& args, const DeviceSequences& sequences) {
  const int64_t head_dim = args.kv.head_dim;
  return sequences.longest_rows == 1 && args.queries.rows == sequences.count && args.kv.dtype == DType::kBF16 &&
         (head_dim == 32 || head_dim == 64 || head_dim == 128 || head_dim == 256) &&
         args.query_heads / args.kv.kv_heads <= kMaxGroup &&
         std::has_single_bit(static_cast<uint64_t>(args.kv.page_tokens));
}

void attention_rows(const AttentionArgs& args, const DeviceSequences& sequences) {
  // By the batch alone, not by the context: a captured graph serves any.
  const int64_t blocks = args.queries.rows * args.kv.kv_heads;
  const int64_t wanted = int64_t{gpu_device().multiprocessors} * kBlocksPerProcessor;
  const auto parts = static_cast<int>(std::clamp<int64_t>(wanted / blocks, 1, kMaxParts));
  const int64_t heads = args.queries.rows * args.query_heads;
  const auto count = static_cast<size_t>(heads * parts);
  auto* memory = reinterpret_cast<float*>(
      device_scratch(Slot::kAttentionPartials, count * static_cast<size_t>(args.kv.head_dim + 2) * sizeof(float)));
  const Partials partials{memory, memory + count, memory + 2 * count};
  const Rows rows{sequences,
                  static_cast<const float*>(args.queries.data),
                  args.queries.row_stride,
                  static_cast<const __nv_bfloat16*>(args.kv.keys),
                  static_cast<const __nv_bfloat16*>(args.kv.values),
                  args.kv.kv_heads,
                  std::countr_zero(static_cast<uint64_t>(args.kv.page_tokens)),
                  args.sliding_window,
                  args.scale * kLog2E};
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(args.kv.kv_heads),
                  static_cast<unsigned>(args.queries.rows));
  const int64_t group = args.query_heads / args.kv.kv_heads;
  switch (args.kv.head_dim) {
    case 32: launch_group<32>(group, grid, rows, partials); break;
    case 64: launch_group<64>(group, grid, rows, partials); break;
    case 128: launch_group<128>(group, grid, rows, partials); break;
    default: launch_group<256>(group, grid, rows, partials); break;
  }
  check_launch("paged_attention of rows");
  const dim3 merge_grid(static_cast<unsigned>(args.query_heads), static_cast<unsigned>(args.queries.rows));
  const auto threads = static_cast<unsigned>(std::min<int64_t>(args.kv.head_dim, 128));
  if (args.output.dtype == DType::kF32) {
    merge_kernel<<<merge_grid, threads, 0, stream()>>>(partials, parts, args.kv.head_dim,
                                                       static_cast<float*>(args.output.data), args.output.row_stride);
  } else {
    merge_kernel<<<merge_grid, threads, 0, stream()>>>(
        partials, parts, args.kv.head_dim, static_cast<__nv_bfloat16*>(args.output.data), args.output.row_stride);
  }
  check_launch("merging parts of paged_attention");
}

}  // namespace scd::kernels::cuda
