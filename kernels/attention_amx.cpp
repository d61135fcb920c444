// One tile of attention on AMX: 32 queries against blocks of 128 keys. Keys enter as they lie in the cache
// (a page of 16 tokens is a tile), values transposed once a call, weights as BF16 pairs. Bound: the exponentials.
#include "kernels/amx_tiles.h"
#include "kernels/attention_tile.h"

#include <algorithm>
#include <cstring>

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kTileElements = 16 * 32;  // BF16 of a tile register
constexpr int64_t kBlockKeys = 128;
constexpr int64_t kQueries = kAmxTileQueries;

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
  uint16_t queries[2][kAmxHeadDim / 32][kTileElements];           // [query half][input block][16 pairs][16 queries][2]
  float scores[kBlockKeys][kQueries];                             // in units of log 2
  uint16_t weights[kBlockKeys / kAmxKeyBlock][2][kTileElements];  // [key block][query half][16 pairs][16 queries][2]
  float sums[kAmxHeadDim][kQueries];
  float largest[kQueries];
  float total[kQueries];
  int32_t positions[kQueries];
};

int64_t group_of(const AttentionArgs& args) { return args.query_heads / args.kv.kv_heads; }

// Queries times scale times log2(e), rounded to BF16; unused ones are zero and see everything.
void load_queries(const AttentionArgs& args, const AttentionTile& tile, TileMemory& memory) {
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
const uint16_t* key_tile(const AttentionArgs& args, const AttentionTile& tile, int64_t position) {
  const PagedKv& kv = args.kv;
  const int64_t last_position = tile.sequence->first_position + tile.sequence->rows - 1;
  const int64_t index = std::min(position, last_position / 16 * 16);
  const int64_t page = tile.sequence->page_ids[static_cast<size_t>(index / kv.page_tokens)];
  return static_cast<const uint16_t*>(kv.keys) +
         ((page * kv.kv_heads + tile.kv_head) * kv.page_tokens + index % kv.page_tokens) * kv.head_dim;
}

void score_block(const AttentionArgs& args, const AttentionTile& tile, int64_t first_key, int64_t keys,
                 TileMemory& memory) {
  const int64_t row_bytes = args.kv.head_dim * 2;
  for (int64_t key = 0; key < keys; key += kAmxKeyBlock) {
    const uint16_t* low = key_tile(args, tile, first_key + key);
    const uint16_t* high = key_tile(args, tile, first_key + key + 16);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t block = 0; block < args.kv.head_dim / 32; ++block) {
      _tile_loadd(4, low + block * 32, row_bytes);
      _tile_loadd(6, memory.queries[0][block], 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, memory.queries[1][block], 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, high + block * 32, row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    constexpr int64_t kScoreBytes = kQueries * sizeof(float);
    _tile_stored(0, &memory.scores[key][0], kScoreBytes);
    _tile_stored(1, &memory.scores[key][16], kScoreBytes);
    _tile_stored(2, &memory.scores[key + 16][0], kScoreBytes);
    _tile_stored(3, &memory.scores[key + 16][16], kScoreBytes);
  }
}

void mask_block(const AttentionArgs& args, int64_t first_key, int64_t keys, TileMemory& memory) {
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
void weigh_block(int64_t head_dim, int64_t keys, TileMemory& memory) {
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
      _mm512_store_si512(memory.weights[k / kAmxKeyBlock][half] + k % kAmxKeyBlock * 16,
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

// values: the transposed values [key blocks][head_dim][32] from this block's first key on.
void add_block(int64_t head_dim, int64_t keys, const uint16_t* values, TileMemory& memory) {
  tile_fence();
  constexpr int64_t kSumBytes = kQueries * sizeof(float);
  for (int64_t d = 0; d < head_dim; d += 32) {
    _tile_loadd(0, &memory.sums[d][0], kSumBytes);
    _tile_loadd(1, &memory.sums[d][16], kSumBytes);
    _tile_loadd(2, &memory.sums[d + 16][0], kSumBytes);
    _tile_loadd(3, &memory.sums[d + 16][16], kSumBytes);
    for (int64_t block = 0; block < keys / kAmxKeyBlock; ++block) {
      const uint16_t* from = values + (block * head_dim + d) * kAmxKeyBlock;
      _tile_loadd(4, from, 64);
      _tile_loadd(6, memory.weights[block][0], 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, memory.weights[block][1], 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, from + kTileElements, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, &memory.sums[d][0], kSumBytes);
    _tile_stored(1, &memory.sums[d][16], kSumBytes);
    _tile_stored(2, &memory.sums[d + 16][0], kSumBytes);
    _tile_stored(3, &memory.sums[d + 16][16], kSumBytes);
  }
}

void store_result(const AttentionArgs& args, const AttentionTile& tile, const TileMemory& memory) {
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

}  // namespace

void transpose_values_amx(const PagedKv& kv, const SequenceRows& sequence, int64_t kv_head, uint16_t* transposed) {
  const int64_t keys = sequence.first_position + sequence.rows;
  for (int64_t first = 0; first < keys; first += kAmxKeyBlock) {
    const uint16_t* tokens[kAmxKeyBlock] = {};
    for (int64_t i = 0; i < std::min(kAmxKeyBlock, keys - first); ++i) {
      const int64_t page = sequence.page_ids[static_cast<size_t>((first + i) / kv.page_tokens)];
      tokens[i] = static_cast<const uint16_t*>(kv.values) +
                  ((page * kv.kv_heads + kv_head) * kv.page_tokens + (first + i) % kv.page_tokens) * kv.head_dim;
    }
    const auto widened = [&tokens](int64_t token, int64_t d) {
      if (tokens[token] == nullptr) return _mm512_setzero_si512();
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tokens[token] + d)));
    };
    for (int64_t d = 0; d < kv.head_dim; d += 16) {
      __m512i rows[16];
      for (int64_t i = 0; i < 16; ++i) {
        rows[i] = _mm512_or_si512(widened(2 * i, d), _mm512_slli_epi32(widened(2 * i + 1, d), 16));
      }
      transpose(rows);
      for (int64_t i = 0; i < 16; ++i) {
        _mm512_storeu_si512(transposed + (first / kAmxKeyBlock * kv.head_dim + d + i) * kAmxKeyBlock, rows[i]);
      }
    }
  }
}

void attend_amx(const AttentionArgs& args, const AttentionTile& tile, const uint16_t* transposed_values) {
  const AmxTiles tiles;
  TileMemory memory;
  load_queries(args, tile, memory);
  const int64_t lowest = memory.positions[0];
  const int64_t highest = memory.positions[kQueries - 1];
  for (int64_t first = tile.first_key; first < tile.last_key; first += kBlockKeys) {
    const int64_t left = std::min(kBlockKeys, tile.last_key - first);
    const int64_t keys = (left + kAmxKeyBlock - 1) / kAmxKeyBlock * kAmxKeyBlock;
    score_block(args, tile, first, keys, memory);
    const bool all_visible =
        first + keys - 1 <= lowest && (args.sliding_window == 0 || first > highest - args.sliding_window);
    if (!all_visible) mask_block(args, first, keys, memory);
    weigh_block(args.kv.head_dim, keys, memory);
    add_block(args.kv.head_dim, keys, transposed_values + first * args.kv.head_dim, memory);
  }
  tile_fence();
  store_result(args, tile, memory);
}

}  // namespace scd::kernels::cpu
