// Attention of prefill on Hopper: one warpgroup loads keys and values, two multiply 64 rows each with wgmma; a tile's
// softmax runs while the tensor cores add the values of the tile before (Shah et al. 2024, arXiv:2407.08608). Queries
// and weights are rounded to BF16, sums are FP32.
#include <algorithm>

#include "kernels/attention_cuda.h"
#include "kernels/attention_tiles.cuh"
#include "kernels/cuda_common.cuh"
#include "kernels/device.h"
#include "kernels/tensor_core.cuh"
#include "kernels/warpgroup.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SCD_WARPGROUPS
#endif

namespace scd::kernels::cuda {
namespace {

constexpr int kPageTokens = 1 << kPageShift;
constexpr int kTileKeys = 128;
constexpr int kTilePages = kTileKeys / kPageTokens;
constexpr int kRowsOfGroup = 64;
constexpr int kGroups = static_cast<int>(kQueryTile) / kRowsOfGroup;
constexpr int kStages = 2;
constexpr int kLoaders = 64;  // of keys, and as many of values
constexpr int kThreads = 128 * (1 + kGroups);
constexpr int kLoaderRegisters = 56, kWorkerRegisters = 224;
constexpr int kFirstTurn = 1 + kGroups;  // of the named barriers; those before are the groups' own

// Halves of 64 columns, each [rows] of 128 bytes.
template <int kHeadDim>
struct Shared {
  static constexpr int kHalves = kHeadDim / 64;
  static constexpr int kQueryHalf = static_cast<int>(kQueryTile) * 128;
  static constexpr int kTileHalf = kTileKeys * 128;
  static constexpr int kTile = kHalves * kTileHalf;
  static constexpr int kQueries = 0;
  static constexpr int kKeys = kHalves * kQueryHalf;
  static constexpr int kValues = kKeys + kStages * kTile;
  static constexpr int kBarriers = kValues + kStages * kTile;
  static constexpr int kBytes = kBarriers + 4 * kStages * 8;
  static constexpr int kAllocated = kBytes + 1024;  // for the alignment
};

// Of a chunk of 16 bytes within a half.
__device__ uint32_t chunk_at(int row, int chunk) {
  return static_cast<uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4));
}

// Which rows of which sequence a block has, and the keys they see.
struct Place {
  int rows, first_position, context, first_tile, tile_end;
  int64_t first_row;
  const int32_t* page_ids;

  __device__ Place(const Tiles& args, int tile) {
    const int sequence = args.sequences.tiles[2 * tile];
    const int first = args.sequences.tiles[2 * tile + 1];
    rows = min(static_cast<int>(kQueryTile), args.sequences.row_count[sequence] - first);
    first_position = args.sequences.first_position[sequence] + first;
    first_row = args.sequences.first_row[sequence] + first;
    page_ids = args.sequences.page_ids + sequence * args.sequences.page_stride;
    context = first_position + rows;
    const int hidden = args.sliding_window > 0 ? max(first_position - args.sliding_window + 1, 0) : 0;
    first_tile = hidden / kTileKeys;
    tile_end = (context + kTileKeys - 1) / kTileKeys;
  }
};

#ifdef SCD_WARPGROUPS

struct Barriers {
  uint32_t base;
  __device__ uint32_t keys_full(int stage) const { return base + stage * 8; }
  __device__ uint32_t keys_free(int stage) const { return base + (kStages + stage) * 8; }
  __device__ uint32_t values_full(int stage) const { return base + (2 * kStages + stage) * 8; }
  __device__ uint32_t values_free(int stage) const { return base + (3 * kStages + stage) * 8; }
};

// Rows beyond the context become zeros: what pages hold there may be anything, and 0 times NaN is not 0.
template <int kHeadDim>
__device__ void load_tile(const Tiles& args, const Place& place, const __nv_bfloat16* pool, int kv_head, int number,
                          uint32_t to, int thread) {
  constexpr int kChunks = kHeadDim / 8;
  constexpr int kRows = kLoaders / kChunks;  // that the loaders take at once
  const int chunk = thread % kChunks;
  const uint32_t half = to + chunk / 8 * Shared<kHeadDim>::kTileHalf;
  const int first_row = thread / kChunks;
  const int begin = number * kTileKeys;
#pragma unroll 2
  for (int page = 0; page < kTilePages; ++page) {
    const int position = begin + page * kPageTokens + first_row;
    const int64_t slice =
        int64_t{place.page_ids[(position < place.context ? position : 0) >> kPageShift]} * args.kv_heads + kv_head;
    const __nv_bfloat16* from = pool + ((slice << kPageShift) + first_row) * kHeadDim + chunk * 8;
#pragma unroll
    for (int row = 0; row < kPageTokens; row += kRows) {
      const uint32_t place_of_row = chunk_at(page * kPageTokens + first_row + row, chunk % 8);
      copy_async(half + place_of_row, from + row * kHeadDim, position + row < place.context);
    }
  }
  commit_copies();
}

// Tiles of keys or of values, each announced once the next is under way.
template <int kHeadDim>
__device__ void load_all(const Tiles& args, const Place& place, const __nv_bfloat16* pool, int kv_head, uint32_t memory,
                         uint32_t full, uint32_t free, int thread) {
  const int count = place.tile_end - place.first_tile;
  const auto announce = [&](int number) {
    publish_to_tensor_cores();
    arrive(full + number % kStages * 8);
  };
  for (int i = 0; i < count; ++i) {
    const int stage = i % kStages;
    wait(free + stage * 8, i / kStages % 2 ^ 1);
    load_tile<kHeadDim>(args, place, pool, kv_head, place.first_tile + i, memory + stage * Shared<kHeadDim>::kTile,
                        thread);
    if (i == 0) continue;
    wait_copies<1>();
    announce(i - 1);
  }
  wait_copies<0>();
  announce(count - 1);
}

// The warpgroups queue their products in turns, so that one's softmax meets the other's products.
__device__ void take_turn(int group) { asm volatile("bar.sync %0, 256;\n" ::"r"(kFirstTurn + group) : "memory"); }
__device__ void give_turn(int group) { asm volatile("bar.arrive %0, 256;\n" ::"r"(kFirstTurn + group) : "memory"); }

// The running softmax of a thread's two rows.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0f, 0.0f};  // of this lane's columns

  // Scores become weights; returns by how much what was summed before shrinks.
  __device__ float2 update(float (&scores)[kTileKeys / 2], float scale) {
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = largest[half];
#pragma unroll
      for (int t = 0; t < kTileKeys / 8; ++t) {
        top = fmaxf(top, fmaxf(scores[4 * t + 2 * half], scores[4 * t + 2 * half + 1]));
      }
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      // A row that has seen no key yet keeps -infinity; its weights must be 0, not NaN.
      const float base = top == -INFINITY ? 0.0f : top * scale;
      shrink[half] = exp2f(largest[half] * scale - base);
      largest[half] = top;
      float sum = 0.0f;
#pragma unroll
      for (int t = 0; t < kTileKeys / 8; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[4 * t + 2 * half + i];
          score = exp2f(score * scale - base);
          sum += score;
        }
      }
      total[half] = total[half] * shrink[half] + sum;
    }
    return {shrink[0], shrink[1]};
  }
};

template <int kHeadDim, class Out>
__device__ void attend(const Tiles& args, const Place& place, int head, unsigned char* generic, uint32_t memory,
                       const Barriers& barriers, Out* output, int64_t output_stride) {
  using Memory = Shared<kHeadDim>;
  const int group = threadIdx.x / 128 - 1;
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const int band = group * kRowsOfGroup;        // first row of this warpgroup
  const int row = band + warp * 16 + lane / 4;  // this lane's first; the second is 8 below
  const int column = lane % 4 * 2;

  constexpr int kChunks = kHeadDim / 8;
  for (int index = thread; index < kRowsOfGroup * kChunks; index += 128) {
    const int r = band + index / kChunks, chunk = index % kChunks;
    uint4 bits = make_uint4(0, 0, 0, 0);
    if (r < place.rows) {
      const float* from = args.queries + (place.first_row + r) * args.query_stride + head * kHeadDim + chunk * 8;
      const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
      bits = make_uint4(packed(low.x, low.y), packed(low.z, low.w), packed(high.x, high.y), packed(high.z, high.w));
    }
    *reinterpret_cast<uint4*>(generic + Memory::kQueries + chunk / 8 * Memory::kQueryHalf + chunk_at(r, chunk % 8)) =
        bits;
  }
  publish_to_tensor_cores();
  asm volatile("bar.sync %0, 128;\n" ::"r"(1 + group) : "memory");

  const uint32_t queries = memory + Memory::kQueries + band * 128;
  const auto score = [&](float(&scores)[kTileKeys / 2], int stage) {
    const uint32_t keys = memory + Memory::kKeys + stage * Memory::kTile;
    warpgroup_arrive();
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const uint32_t inner = step % 4 * 32;
      multiply_shared(scores, matrix_descriptor(queries + step / 4 * Memory::kQueryHalf + inner),
                      matrix_descriptor(keys + step / 4 * Memory::kTileHalf + inner), step > 0);
    }
    warpgroup_commit();
  };
  float mixed[kHeadDim / 2] = {};
  uint32_t weights[kTileKeys / 16][4];
  const auto add_values = [&](int stage) {
    const uint32_t values = memory + Memory::kValues + stage * Memory::kTile;
    warpgroup_arrive();
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) {
      multiply_registers(mixed, weights[step], matrix_descriptor(values + step * 16 * 128, Memory::kTileHalf));
    }
    warpgroup_commit();
  };
  const auto hide = [&](float(&scores)[kTileKeys / 2], int number) {
    const int begin = number * kTileKeys;
    const int position = place.first_position + row;
    const int last_of_group = place.first_position + band + kRowsOfGroup - 1;
    const bool late = begin + kTileKeys - 1 > place.first_position + band;
    const bool early = args.sliding_window > 0 && begin <= last_of_group - args.sliding_window;
    if (!late && !early) return;
#pragma unroll
    for (int t = 0; t < kTileKeys / 8; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = begin + t * 8 + column + i % 2;
        const int own = position + i / 2 * 8;
        if (key > own || (args.sliding_window > 0 && key <= own - args.sliding_window)) scores[4 * t + i] = -INFINITY;
      }
    }
  };
  const auto round_weights = [&](const float(&scores)[kTileKeys / 2]) {
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) weights[step][i] = packed(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
    }
  };
  const auto release = [&](uint32_t barrier) {
    if (thread == 0) arrive(barrier);
  };

  float scores[kTileKeys / 2];
  Softmax softmax;
  const int count = place.tile_end - place.first_tile;
  wait(barriers.keys_full(0), 0);
  score(scores, 0);
  warpgroup_wait<0>();
  hold(scores);
  release(barriers.keys_free(0));
  hide(scores, place.first_tile);
  softmax.update(scores, args.scale);
  round_weights(scores);
  if (group == 1 && count > 1) give_turn(0);
  for (int i = 1; i < count; ++i) {
    const int stage = i % kStages, phase = i / kStages % 2;
    const int before = (i - 1) % kStages, phase_before = (i - 1) / kStages % 2;
    wait(barriers.keys_full(stage), phase);
    take_turn(group);
    score(scores, stage);
    wait(barriers.values_full(before), phase_before);
    add_values(before);
    if (group == 0 || i + 1 < count) give_turn(1 - group);
    warpgroup_wait<1>();
    hold(scores);
    release(barriers.keys_free(stage));
    hide(scores, place.first_tile + i);
    const float2 shrink = softmax.update(scores, args.scale);
    warpgroup_wait<0>();
    hold(mixed);
    release(barriers.values_free(before));
#pragma unroll
    for (int t = 0; t < kHeadDim / 8; ++t) {
      mixed[4 * t] *= shrink.x;
      mixed[4 * t + 1] *= shrink.x;
      mixed[4 * t + 2] *= shrink.y;
      mixed[4 * t + 3] *= shrink.y;
    }
    round_weights(scores);
  }
  const int last = (count - 1) % kStages;
  wait(barriers.values_full(last), (count - 1) / kStages % 2);
  add_values(last);
  warpgroup_wait<0>();
  hold(mixed);

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = softmax.total[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
    if (row + 8 * half >= place.rows) continue;
    Out* to = output + (place.first_row + row + 8 * half) * output_stride + head * kHeadDim + column;
#pragma unroll
    for (int t = 0; t < kHeadDim / 8; ++t) {
      store(mixed[4 * t + 2 * half] * inverse, to + t * 8);
      store(mixed[4 * t + 2 * half + 1] * inverse, to + t * 8 + 1);
    }
  }
}

#endif  // SCD_WARPGROUPS

template <int kHeadDim, class Out>
__global__ void __launch_bounds__(kThreads, 1)
    warpgroup_kernel([[maybe_unused]] Tiles args, [[maybe_unused]] Out* output,
                     [[maybe_unused]] int64_t output_stride) {
#ifdef SCD_WARPGROUPS
  using Memory = Shared<kHeadDim>;
  extern __shared__ unsigned char unaligned[];
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(unaligned));
  const uint32_t memory = (address + 1023) & ~1023u;
  unsigned char* generic = unaligned + (memory - address);
  const Barriers barriers{memory + Memory::kBarriers};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(barriers.keys_full(stage), kLoaders);
      init_barrier(barriers.values_full(stage), kLoaders);
      init_barrier(barriers.keys_free(stage), kGroups);
      init_barrier(barriers.values_free(stage), kGroups);
    }
  }
  __syncthreads();
  const int tile = static_cast<int>(gridDim.y) - 1 - static_cast<int>(blockIdx.y);  // late ones, the longest, first
  const int head = blockIdx.x;
  const Place place(args, tile);
  if (threadIdx.x < 128) {
    give_registers<kLoaderRegisters>();
    const int thread = threadIdx.x % kLoaders, kv_head = head / args.group;
    if (threadIdx.x < kLoaders) {
      load_all<kHeadDim>(args, place, args.keys, kv_head, memory + Memory::kKeys, barriers.keys_full(0),
                         barriers.keys_free(0), thread);
    } else {
      load_all<kHeadDim>(args, place, args.values, kv_head, memory + Memory::kValues, barriers.values_full(0),
                         barriers.values_free(0), thread);
    }
  } else {
    take_registers<kWorkerRegisters>();
    attend<kHeadDim>(args, place, head, generic, memory, barriers, output, output_stride);
  }
#endif
}

}  // namespace

bool takes_warpgroups(const AttentionArgs& args) {
  const auto address = reinterpret_cast<uintptr_t>(args.queries.data);
  return gpu_device().compute_capability == 90 && takes_tiles(args) && address % 16 == 0 &&
         args.queries.row_stride % 4 == 0;
}

void attention_warpgroups(const AttentionArgs& args, const DeviceSequences& sequences) {
  with_tile_shape(args, [&](auto head_dim, auto* out) {
    constexpr int kHeadDim = decltype(head_dim)::value;
    using Out = std::remove_pointer_t<decltype(out)>;
    launch_tiles<warpgroup_kernel<kHeadDim, Out>, Out>(args, sequences, kThreads, Shared<kHeadDim>::kAllocated);
  });
}

}  // namespace scd::kernels::cuda
