// Attention of prefill on tensor cores (mma.sync, from sm_80 on): a block takes kQueryTile rows of one query head and
// streams the keys and values it may see through shared memory, two tiles in flight, with a running softmax
// (Dao 2023, arXiv:2307.08691). Queries and weights are rounded to BF16, sums are FP32.
#include <algorithm>

#include "kernels/attention_cuda.h"
#include "kernels/attention_tiles.cuh"
#include "kernels/cuda_common.cuh"
#include "kernels/tensor_core.cuh"

namespace scd::kernels::cuda {
namespace {

constexpr int kTileRows = static_cast<int>(kQueryTile);
constexpr int kTileKeys = 64;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kBands = kTileRows / kWarps / 16;  // of 16 rows, of a warp

// Rows of kHeadDim BF16 in shared memory, in chunks of 16 bytes; a row's chunks are permuted by its number so that the
// 8 rows that ldmatrix reads at once lie in different banks.
template <int kHeadDim>
__device__ uint32_t chunk_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * kHeadDim * 2 + ((chunk ^ (row & 7)) << 4));
}

template <int kHeadDim>
constexpr int shared_bytes() {
  return (kTileRows + 2 * 2 * kTileKeys) * kHeadDim * 2;
}

template <int kHeadDim, class Out>
__global__ void __launch_bounds__(kThreads, 2) tiles_kernel(Tiles args, Out* output, int64_t output_stride) {
  constexpr int kChunks = kHeadDim / 8;      // of a row
  constexpr int kSteps = kHeadDim / 16;      // of the inner dimension of Q K^T
  constexpr int kValueTiles = kHeadDim / 8;  // of 8 columns of the output
  constexpr int kKeyTiles = kTileKeys / 8;   // of 8 columns of the scores
  constexpr uint32_t kTileBytes = kTileKeys * kHeadDim * 2;
  extern __shared__ __align__(128) unsigned char memory[];
  const uint32_t query_tile = shared_address(memory);
  const uint32_t key_tiles = query_tile + kTileRows * kHeadDim * 2;
  const uint32_t value_tiles = key_tiles + 2 * kTileBytes;

  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int group_row = lane / 4, group_column = lane % 4 * 2;  // of this lane in a fragment of scores
  const int tile = static_cast<int>(gridDim.y) - 1 - static_cast<int>(blockIdx.y);  // late ones, the longest, first
  const int head = blockIdx.x, kv_head = head / args.group;
  const int sequence = args.sequences.tiles[2 * tile];
  const int first = args.sequences.tiles[2 * tile + 1];
  const int rows = min(kTileRows, args.sequences.row_count[sequence] - first);
  const int first_position = args.sequences.first_position[sequence] + first;
  const int64_t first_row = args.sequences.first_row[sequence] + first;
  const int32_t* page_ids = args.sequences.page_ids + sequence * args.sequences.page_stride;
  const int context = first_position + rows;  // positions that the last row sees
  const int visible =
      args.sliding_window > 0 && first_position >= args.sliding_window ? first_position - args.sliding_window + 1 : 0;
  const int first_tile = visible / kTileKeys;
  const int tile_end = (context + kTileKeys - 1) / kTileKeys;

  // Queries, rounded; rows beyond the tile's are zero.
  for (int index = thread; index < kTileRows * kChunks; index += kThreads) {
    const int row = index / kChunks, chunk = index % kChunks;
    uint4 bits = make_uint4(0, 0, 0, 0);
    if (row < rows) {
      const float* from = args.queries + (first_row + row) * args.query_stride + head * kHeadDim + chunk * 8;
      bits = make_uint4(packed(from[0], from[1]), packed(from[2], from[3]), packed(from[4], from[5]),
                        packed(from[6], from[7]));
    }
    *reinterpret_cast<uint4*>(memory + chunk_offset<kHeadDim>(row, chunk)) = bits;
  }
  const auto load_tile = [&](int number) {
    const uint32_t slot = (number & 1) * kTileBytes;
#pragma unroll
    for (int i = 0; i < kTileKeys * kChunks / kThreads; ++i) {
      const int index = thread + i * kThreads;
      const int row = index / kChunks, chunk = index % kChunks;
      const int position = number * kTileKeys + row;
      const bool valid = position < context;
      const int64_t page = page_ids[(valid ? position : 0) >> kPageShift];
      const int64_t from =
          (((page * args.kv_heads + kv_head) << kPageShift) + (position & ((1 << kPageShift) - 1))) * kHeadDim +
          chunk * 8;
      const uint32_t to = slot + chunk_offset<kHeadDim>(row, chunk);
      copy_async(key_tiles + to, args.keys + from, valid);
      copy_async(value_tiles + to, args.values + from, valid);
    }
    commit_copies();
  };

  float mixed[kBands][kValueTiles][4] = {};
  float largest[kBands][2], total[kBands][2];
#pragma unroll
  for (int band = 0; band < kBands; ++band) {
    largest[band][0] = largest[band][1] = -INFINITY;
    total[band][0] = total[band][1] = 0.0f;
  }
  load_tile(first_tile);
  for (int number = first_tile; number < tile_end; ++number) {
    if (number + 1 < tile_end) {
      load_tile(number + 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    const uint32_t keys = key_tiles + (number & 1) * kTileBytes;
    const uint32_t values = value_tiles + (number & 1) * kTileBytes;

    float scores[kBands][kKeyTiles][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t query[kBands][4];
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        const int row = (warp * kBands + band) * 16 + lane % 16;
        load_matrices(query[band], query_tile + chunk_offset<kHeadDim>(row, step * 2 + lane / 16));
      }
#pragma unroll
      for (int pair = 0; pair < kKeyTiles / 2; ++pair) {
        uint32_t key[4];  // two tiles of 8 keys, each two halves of the step
        const int row = pair * 16 + lane / 16 * 8 + lane % 8;
        load_matrices(key, keys + chunk_offset<kHeadDim>(row, step * 2 + lane / 8 % 2));
#pragma unroll
        for (int band = 0; band < kBands; ++band) {
          multiply(scores[band][2 * pair], query[band], key[0], key[1]);
          multiply(scores[band][2 * pair + 1], query[band], key[2], key[3]);
        }
      }
    }

    const int key_begin = number * kTileKeys;
#pragma unroll
    for (int band = 0; band < kBands; ++band) {
      const int band_row = (warp * kBands + band) * 16;
      const bool hides = key_begin + kTileKeys - 1 > first_position + band_row ||
                         (args.sliding_window > 0 && key_begin <= first_position + band_row + 15 - args.sliding_window);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int position = first_position + band_row + group_row + 8 * half;
        float top = largest[band][half];
#pragma unroll
        for (int t = 0; t < kKeyTiles; ++t) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& score = scores[band][t][2 * half + i];
            score *= args.scale;
            if (hides) {
              const int key = key_begin + t * 8 + group_column + i;
              if (key > position || (args.sliding_window > 0 && key <= position - args.sliding_window)) {
                score = -INFINITY;
              }
            }
            top = fmaxf(top, score);
          }
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        // A row that has seen no key yet keeps -infinity; its weights must be 0, not NaN.
        const float base = top == -INFINITY ? 0.0f : top;
        const float shrink = exp2f(largest[band][half] - base);
        largest[band][half] = top;
        float sum = 0.0f;
#pragma unroll
        for (int t = 0; t < kKeyTiles; ++t) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& score = scores[band][t][2 * half + i];
            score = exp2f(score - base);
            sum += score;
          }
        }
        total[band][half] = total[band][half] * shrink + sum;
#pragma unroll
        for (int t = 0; t < kValueTiles; ++t) {
          mixed[band][t][2 * half] *= shrink;
          mixed[band][t][2 * half + 1] *= shrink;
        }
      }
    }

#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) {
      uint32_t weight[kBands][4];
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        weight[band][0] = packed(scores[band][2 * step][0], scores[band][2 * step][1]);
        weight[band][1] = packed(scores[band][2 * step][2], scores[band][2 * step][3]);
        weight[band][2] = packed(scores[band][2 * step + 1][0], scores[band][2 * step + 1][1]);
        weight[band][3] = packed(scores[band][2 * step + 1][2], scores[band][2 * step + 1][3]);
      }
#pragma unroll
      for (int pair = 0; pair < kValueTiles / 2; ++pair) {
        uint32_t value[4];  // two tiles of 8 columns, each two halves of the step's keys
        const int row = step * 16 + lane / 8 % 2 * 8 + lane % 8;
        load_matrices_transposed(value, values + chunk_offset<kHeadDim>(row, pair * 2 + lane / 16));
#pragma unroll
        for (int band = 0; band < kBands; ++band) {
          multiply(mixed[band][2 * pair], weight[band], value[0], value[1]);
          multiply(mixed[band][2 * pair + 1], weight[band], value[2], value[3]);
        }
      }
    }
    __syncthreads();  // the slot is loaded again in the next turn
  }

#pragma unroll
  for (int band = 0; band < kBands; ++band) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = total[band][half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
      const int row = (warp * kBands + band) * 16 + group_row + 8 * half;
      if (row >= rows) continue;
      Out* to = output + (first_row + row) * output_stride + head * kHeadDim + group_column;
#pragma unroll
      for (int t = 0; t < kValueTiles; ++t) {
        store(mixed[band][t][2 * half] * inverse, to + t * 8);
        store(mixed[band][t][2 * half + 1] * inverse, to + t * 8 + 1);
      }
    }
  }
}

}  // namespace

bool takes_tiles(const AttentionArgs& args) {
  return args.kv.dtype == DType::kBF16 && args.kv.page_tokens == 1 << kPageShift &&
         (args.kv.head_dim == 64 || args.kv.head_dim == 128);
}

void attention_tiles(const AttentionArgs& args, const DeviceSequences& sequences) {
  with_tile_shape(args, [&](auto head_dim, auto* out) {
    constexpr int kHeadDim = decltype(head_dim)::value;
    using Out = std::remove_pointer_t<decltype(out)>;
    launch_tiles<tiles_kernel<kHeadDim, Out>, Out>(args, sequences, kThreads, shared_bytes<kHeadDim>());
  });
}

}  // namespace scd::kernels::cuda
