// Factors in pairs on AVX512-BF16: sixteen ranks, then sixteen outputs, are the lanes of a register; a pair of inputs
// is broadcast. Each load of a factor meets all rows of the tile. The order of a row's sums is the same whatever the
// tile.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/low_rank_weights.h"
#include "kernels/scratch.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kLanes = LowRankWeights::kLanes;
constexpr int64_t kPairBytes = 64;  // a pair of inputs for sixteen lanes
constexpr int64_t kPrefetchBytes = 2048;

__mmask16 lane_mask(int64_t lanes) { return static_cast<__mmask16>(lanes >= 16 ? 0xffff : (1u << lanes) - 1u); }

__m512bh broadcast_pair(const uint16_t* pair) {
  int32_t both;
  std::memcpy(&both, pair, sizeof(both));
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
}

// A row as BF16, zeros up to `padded`; its own memory where that is what it holds.
const uint16_t* bf16_row(const ConstMatrix& x, int64_t row, int64_t padded, uint16_t* to) {
  if (x.dtype == DType::kBF16) {
    if (padded == x.columns) return x.row<uint16_t>(row);
    std::memcpy(to, x.row<uint16_t>(row), static_cast<size_t>(x.columns) * sizeof(uint16_t));
    std::fill(to + x.columns, to + padded, uint16_t{0});
    return to;
  }
  for (int64_t i = 0; i < padded; i += kLanes) {
    const __m512 values = _mm512_maskz_loadu_ps(lane_mask(std::max<int64_t>(x.columns - i, 0)), x.row<float>(row) + i);
    const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values));
    _mm256_mask_storeu_epi16(to + i, lane_mask(padded - i), rounded);
  }
  return to;
}

template <int Rows>
struct Pointers {
  const uint16_t* x[Rows];  // [padded_in]
  uint16_t* low[Rows];      // [rank_blocks * 16]: x A^T
};

template <int Rows>
void shrink(const LowRankWeights& weights, const Pointers<Rows>& at) {
  constexpr int kChains = 2;
  const int64_t pairs = weights.padded_in() / 2;
  const auto* from = weights.a<char>();
  for (int64_t block = 0; block < weights.rank_blocks(); ++block) {
    __m512 sums[kChains][Rows];
    for (auto& chain : sums) {
      for (__m512& sum : chain) sum = _mm512_setzero_ps();
    }
    for (int64_t pair = 0; pair < pairs; pair += kChains) {
#pragma GCC unroll 2
      for (int chain = 0; chain < kChains; ++chain, from += kPairBytes) {
        _mm_prefetch(from + kPrefetchBytes, _MM_HINT_T0);
        const auto a = reinterpret_cast<__m512bh>(_mm512_load_si512(from));
#pragma GCC unroll 8
        for (int row = 0; row < Rows; ++row) {
          sums[chain][row] = _mm512_dpbf16_ps(sums[chain][row], a, broadcast_pair(at.x[row] + 2 * (pair + chain)));
        }
      }
    }
    for (int row = 0; row < Rows; ++row) {
      const __m512 sum = _mm512_add_ps(sums[0][row], sums[1][row]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at.low[row] + block * kLanes),
                          reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum)));
    }
  }
}

void add_to(const Matrix& y, int64_t row, int64_t column, __mmask16 mask, __m512 sums) {
  if (y.dtype == DType::kF32) {
    float* to = y.row<float>(row) + column;
    _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, to)));
    return;
  }
  uint16_t* to = y.row<uint16_t>(row) + column;
  const __m512i before = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, to)), 16);
  const auto after = _mm512_cvtneps_pbh(_mm512_add_ps(sums, _mm512_castsi512_ps(before)));
  _mm256_mask_storeu_epi16(to, mask, reinterpret_cast<__m256i>(after));
}

// `Blocks` neighbouring blocks of outputs at once hide the latency of the multiplications.
template <int Rows, int Blocks>
void expand(const LowRankTile& tile, const LowRankWeights::Part& part, const Pointers<Rows>& at, int64_t first_block) {
  const int64_t pairs = part.rank / 2;
  const auto* from = reinterpret_cast<const char*>(tile.weights.b<uint16_t>(part)) + first_block * pairs * kPairBytes;
  __m512 sums[Blocks][Rows];
  for (auto& block : sums) {
    for (__m512& sum : block) sum = _mm512_setzero_ps();
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {
    __m512bh b[Blocks];
    for (int block = 0; block < Blocks; ++block) {
      const char* piece = from + (block * pairs + pair) * kPairBytes;
      _mm_prefetch(piece + kPrefetchBytes, _MM_HINT_T0);
      b[block] = reinterpret_cast<__m512bh>(_mm512_load_si512(piece));
    }
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row) {
      const __m512bh low = broadcast_pair(at.low[row] + part.first_rank + 2 * pair);
      for (int block = 0; block < Blocks; ++block) {
        sums[block][row] = _mm512_dpbf16_ps(sums[block][row], b[block], low);
      }
    }
  }
  for (int block = 0; block < Blocks; ++block) {
    const int64_t column = (first_block + block) * kLanes;
    const __mmask16 mask = lane_mask(part.outputs - column);
    for (int row = 0; row < Rows; ++row) {
      add_to(tile.y, tile.rows[static_cast<size_t>(row)], part.first_output + column, mask, sums[block][row]);
    }
  }
}

template <int Rows>
void add_tile(const LowRankTile& tile) {
  const LowRankWeights& weights = tile.weights;
  const int64_t padded = weights.padded_in(), x_room = (padded + kLanes - 1) / kLanes * kLanes;
  const int64_t low_room = weights.rank_blocks() * kLanes;
  const auto numbers = static_cast<size_t>(Rows * (x_room + low_room));
  auto* memory = reinterpret_cast<uint16_t*>(scratch(ScratchSlot::kLowRank, numbers * sizeof(uint16_t)));
  Pointers<Rows> at;
  for (int row = 0; row < Rows; ++row) {
    at.low[row] = memory + row * low_room;
    at.x[row] = bf16_row(tile.x, tile.rows[static_cast<size_t>(row)], padded, memory + Rows * low_room + row * x_room);
  }
  shrink<Rows>(weights, at);
  constexpr int kTogether = Rows <= 4 ? 4 : 2;
  for (const LowRankWeights::Part& part : weights.parts) {
    const int64_t blocks = (part.outputs + kLanes - 1) / kLanes;
    int64_t block = 0;
    for (; block + kTogether <= blocks; block += kTogether) expand<Rows, kTogether>(tile, part, at, block);
    for (; block < blocks; ++block) expand<Rows, 1>(tile, part, at, block);
  }
}

using AddTile = void (*)(const LowRankTile&);
template <size_t... I>
constexpr std::array<AddTile, sizeof...(I)> tile_kernels(std::index_sequence<I...>) {
  return {add_tile<static_cast<int>(I) + 1>...};
}
constexpr auto kTileKernels = tile_kernels(std::make_index_sequence<kLowRankTileRows>());

}  // namespace

void add_low_rank_avx512_bf16(const LowRankTile& tile) { kTileKernels[tile.rows.size() - 1](tile); }

}  // namespace scd::kernels::cpu
