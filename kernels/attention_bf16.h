// One tile of attention with BF16 products: 32 queries against blocks of 128 keys. Keys enter as they lie in the
// cache, values transposed once a call, weights as BF16 pairs; how the products are made is the including file's
// matter. Internal linkage: it must never be merged with code compiled for another instruction set.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/attention_tile.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kTileElements = 16 * 32;  // BF16 of a block of sixteen rows
constexpr int64_t kBlockKeys = 128;
constexpr int64_t kQueries = kBf16TileQueries;

// Rows become columns: sixteen vectors of sixteen 32-bit elements.
inline void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // v[4 b + c] holds, in its 128-bit part p, column 4 p + c of rows 4 b .. 4 b + 3.
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
    t[8 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
  }
  for (int c = 0; c < 4; ++c) {
    v[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
    v[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
    v[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
    v[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
  }
}

// 2^x for x <= 0 with a relative error below 3e-6 (the weights are rounded to BF16 next); 0 far below.
inline __m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(9.5827655e-3f), _mm512_set1_ps(5.5906425e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4024100e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9312419e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

struct alignas(64) TileMemory {
  uint16_t queries[2][kBf16HeadDim / 32][kTileElements];           // [query half][input block][16 pairs][16 queries][2]
  float scores[kBlockKeys][kQueries];                              // in units of log 2
  uint16_t weights[kBlockKeys / kBf16KeyBlock][2][kTileElements];  // [key block][query half][16 pairs][16 queries][2]
  float sums[kBf16HeadDim][kQueries];
  float largest[kQueries];
  float total[kQueries];
  int32_t positions[kQueries];
};

inline int64_t group_of(const AttentionArgs& args) { return args.query_heads / args.kv.kv_heads; }

// Queries times scale times log2(e), rounded to BF16; unused ones are zero and see everything.
inline void load_queries(const AttentionArgs& args, const AttentionTile& tile, TileMemory& memory) {
  const int64_t group = group_of(args);
  const __m512 scale = _mm512_set1_ps(args.scale * 1.44269504f);
  for (int64_t half = 0; half < 2; ++half) {
    for (int64_t block = 0; block < args.kv.head_dim / 32; ++block) {
      __m512i rows[16];
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t query = tile.first_query + half * 16 + i;
        rows[i] = _mm512_setzero_si512();
        if (half * 16 + i >= tile.queries) continue;
        const float* from = args.queries.row<float>(tile.sequence->first_row + query / group) +
                            (tile.kv_head * group + query % group) * args.kv.head_dim + block * 32;
        const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(from), scale);
        const __m512 high = _mm512_mul_ps(_mm512_loadu_ps(from + 16), scale);
        rows[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
      }
      transpose(rows);
      for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(memory.queries[half][block] + i * 32, rows[i]);
    }
  }
  for (int64_t lane = 0; lane < kQueries; ++lane) {
    const int64_t query = tile.first_query + std::min(lane, tile.queries - 1);
    memory.positions[lane] = static_cast<int32_t>(tile.sequence->first_position + query / group);
    memory.largest[lane] = kMaskedScore;
    memory.total[lane] = 0.0f;
  }
  std::memset(memory.sums, 0, static_cast<size_t>(args.kv.head_dim) * kQueries * sizeof(float));
}

// Where the sixteen keys from `position` lie; past the last page any page will do, as its keys are masked.
inline const uint16_t* key_tile(const AttentionArgs& args, const AttentionTile& tile, int64_t position) {
  const PagedKv& kv = args.kv;
  const int64_t last_position = tile.sequence->first_position + tile.sequence->rows - 1;
  const int64_t index = std::min(position, last_position / 16 * 16);
  const int64_t page = tile.sequence->page_ids[static_cast<size_t>(index / kv.page_tokens)];
  return static_cast<const uint16_t*>(kv.keys) +
         ((page * kv.kv_heads + tile.kv_head) * kv.page_tokens + index % kv.page_tokens) * kv.head_dim;
}

inline void mask_block(const AttentionArgs& args, int64_t first_key, int64_t keys, TileMemory& memory) {
  const __m512 masked = _mm512_set1_ps(kMaskedScore);
  const int64_t window = args.sliding_window == 0 ? INT32_MAX : std::min<int64_t>(args.sliding_window, INT32_MAX);
  const __m512i reach = _mm512_set1_epi32(static_cast<int32_t>(window));
  for (int64_t half = 0; half < 2; ++half) {
    const __m512i positions = _mm512_load_si512(memory.positions + half * 16);
    for (int64_t k = 0; k < keys; ++k) {
      const __m512i distance = _mm512_sub_epi32(positions, _mm512_set1_epi32(static_cast<int32_t>(first_key + k)));
      const __mmask16 visible =
          _mm512_cmpge_epi32_mask(distance, _mm512_setzero_si512()) & _mm512_cmplt_epi32_mask(distance, reach);
      float* scores = &memory.scores[k][half * 16];
      _mm512_store_ps(scores, _mm512_mask_mov_ps(masked, visible, _mm512_load_ps(scores)));
    }
  }
}

// Scores to BF16 weights against the running maximum; rescales what was summed before.
inline void weigh_block(int64_t head_dim, int64_t keys, TileMemory& memory) {
  alignas(64) static constexpr uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i interleave = _mm512_load_si512(kInterleave);
  for (int64_t half = 0; half < 2; ++half) {
    const float* scores = &memory.scores[0][half * 16];
    const __m512 before = _mm512_load_ps(memory.largest + half * 16);
    __m512 largest = before;
    for (int64_t k = 0; k < keys; ++k) largest = _mm512_max_ps(largest, _mm512_load_ps(scores + k * kQueries));
    const __m512 rescale = power_of_two(_mm512_sub_ps(before, largest));
    __m512 total = _mm512_mul_ps(_mm512_load_ps(memory.total + half * 16), rescale);
    for (int64_t k = 0; k < keys; k += 2) {
      const __m512 even = power_of_two(_mm512_sub_ps(_mm512_load_ps(scores + k * kQueries), largest));
      const __m512 odd = power_of_two(_mm512_sub_ps(_mm512_load_ps(scores + (k + 1) * kQueries), largest));
      total = _mm512_add_ps(total, _mm512_add_ps(even, odd));
      const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
      _mm512_store_si512(memory.weights[k / kBf16KeyBlock][half] + k % kBf16KeyBlock * 16,
                         _mm512_permutexvar_epi16(interleave, both));
    }
    _mm512_store_ps(memory.largest + half * 16, largest);
    _mm512_store_ps(memory.total + half * 16, total);
    // The maximum settles after a few blocks; then there is nothing to rescale.
    if (_mm512_cmpeq_ps_mask(before, largest) == 0xffff) continue;
    for (int64_t d = 0; d < head_dim; ++d) {
      float* sums = &memory.sums[d][half * 16];
      _mm512_store_ps(sums, _mm512_mul_ps(_mm512_load_ps(sums), rescale));
    }
  }
}

inline void store_result(const AttentionArgs& args, const AttentionTile& tile, const TileMemory& memory) {
  const int64_t group = group_of(args);
  for (int64_t half = 0; half < 2; ++half) {
    const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_load_ps(memory.total + half * 16));
    for (int64_t d = 0; d < args.kv.head_dim; d += 16) {
      __m512i rows[16];
      for (int64_t i = 0; i < 16; ++i) {
        rows[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(&memory.sums[d + i][half * 16]), inverse));
      }
      transpose(rows);
      for (int64_t i = 0; i < std::min<int64_t>(16, tile.queries - half * 16); ++i) {
        const int64_t query = tile.first_query + half * 16 + i;
        const int64_t row = tile.sequence->first_row + query / group;
        const int64_t column = (tile.kv_head * group + query % group) * args.kv.head_dim + d;
        if (args.output.dtype == DType::kF32) {
          _mm512_storeu_ps(args.output.row<float>(row) + column, _mm512_castsi512_ps(rows[i]));
        } else {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(args.output.row<uint16_t>(row) + column),
                              reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_castsi512_ps(rows[i]))));
        }
      }
    }
  }
}

// Products makes the scores of a block and adds its weighted values:
//   score(args, tile, first_key, keys, memory)   memory.scores[key][query]
//   add(head_dim, keys, values, memory)          memory.sums[d][query]; values: [key blocks][head_dim][32]
template <class Products>
void attend_bf16(const AttentionArgs& args, const AttentionTile& tile, const uint16_t* transposed_values) {
  TileMemory memory;
  load_queries(args, tile, memory);
  const int64_t lowest = memory.positions[0];
  const int64_t highest = memory.positions[kQueries - 1];
  for (int64_t first = tile.first_key; first < tile.last_key; first += kBlockKeys) {
    const int64_t left = std::min(kBlockKeys, tile.last_key - first);
    const int64_t keys = (left + kBf16KeyBlock - 1) / kBf16KeyBlock * kBf16KeyBlock;
    Products::score(args, tile, first, keys, memory);
    const bool all_visible =
        first + keys - 1 <= lowest && (args.sliding_window == 0 || first > highest - args.sliding_window);
    if (!all_visible) mask_block(args, first, keys, memory);
    weigh_block(args.kv.head_dim, keys, memory);
    Products::add(args.kv.head_dim, keys, transposed_values + first * args.kv.head_dim, memory);
  }
  store_result(args, tile, memory);
}

}  // namespace
}  // namespace scd::kernels::cpu
