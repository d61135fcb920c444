// Attention of many queries on AVX512-BF16, for CPUs without AMX: pairs of a key's elements (of a value's tokens) are
// broadcast and meet 32 queries at a time. Bound: the multiplications.
#include "kernels/attention_bf16.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kRows = 8;  // keys, or elements of the head, at once: 16 registers of sums

// sums[row][half] += over pairs: rows[row][pair] (one for all queries) times queries[half][pair].
inline void multiply_pairs(const uint16_t* rows, int64_t row_stride, const uint16_t* low_queries,
                           const uint16_t* high_queries, int64_t pairs, __m512 (&sums)[kRows][2]) {
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const auto low = reinterpret_cast<__m512bh>(_mm512_load_si512(low_queries + pair * 32));
    const auto high = reinterpret_cast<__m512bh>(_mm512_load_si512(high_queries + pair * 32));
#pragma GCC unroll 8
    for (int64_t row = 0; row < kRows; ++row) {
      int32_t both;
      std::memcpy(&both, rows + row * row_stride + pair * 2, sizeof(both));
      const auto element = reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
      sums[row][0] = _mm512_dpbf16_ps(sums[row][0], low, element);
      sums[row][1] = _mm512_dpbf16_ps(sums[row][1], high, element);
    }
  }
}

struct VectorProducts {
  static void score(const AttentionArgs& args, const AttentionTile& tile, int64_t first_key, int64_t keys,
                    TileMemory& memory) {
    const int64_t head_dim = args.kv.head_dim;
    for (int64_t key = 0; key < keys; key += kRows) {
      const uint16_t* from = key_tile(args, tile, (first_key + key) / 16 * 16) + key % 16 * head_dim;
      __m512 dots[kRows][2] = {};
      // The blocks of a half lie one behind the other: [head_dim / 2][16 queries][2].
      multiply_pairs(from, head_dim, memory.queries[0][0], memory.queries[1][0], head_dim / 2, dots);
      for (int64_t row = 0; row < kRows; ++row) {
        _mm512_store_ps(&memory.scores[key + row][0], dots[row][0]);
        _mm512_store_ps(&memory.scores[key + row][16], dots[row][1]);
      }
    }
  }

  static void add(int64_t head_dim, int64_t keys, const uint16_t* values, TileMemory& memory) {
    for (int64_t d = 0; d < head_dim; d += kRows) {
      __m512 sums[kRows][2];
      for (int64_t row = 0; row < kRows; ++row) {
        sums[row][0] = _mm512_load_ps(&memory.sums[d + row][0]);
        sums[row][1] = _mm512_load_ps(&memory.sums[d + row][16]);
      }
      for (int64_t block = 0; block < keys / kBf16KeyBlock; ++block) {
        multiply_pairs(values + (block * head_dim + d) * kBf16KeyBlock, kBf16KeyBlock, memory.weights[block][0],
                       memory.weights[block][1], kBf16KeyBlock / 2, sums);
      }
      for (int64_t row = 0; row < kRows; ++row) {
        _mm512_store_ps(&memory.sums[d + row][0], sums[row][0]);
        _mm512_store_ps(&memory.sums[d + row][16], sums[row][1]);
      }
    }
  }
};

}  // namespace

void transpose_values_bf16(const PagedKv& kv, const SequenceRows& sequence, int64_t kv_head, uint16_t* transposed) {
  const int64_t keys = sequence.first_position + sequence.rows;
  for (int64_t first = 0; first < keys; first += kBf16KeyBlock) {
    const uint16_t* tokens[kBf16KeyBlock] = {};
    for (int64_t i = 0; i < std::min(kBf16KeyBlock, keys - first); ++i) {
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
        _mm512_storeu_si512(transposed + (first / kBf16KeyBlock * kv.head_dim + d + i) * kBf16KeyBlock, rows[i]);
      }
    }
  }
}

void attend_avx512_bf16(const AttentionArgs& args, const AttentionTile& tile, const uint16_t* transposed_values) {
  attend_bf16<VectorProducts>(args, tile, transposed_values);
}

}  // namespace scd::kernels::cpu
