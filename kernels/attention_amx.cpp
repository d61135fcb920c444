// Attention of many queries on AMX: a page of 16 tokens is a tile. Bound: the exponentials.
#include "kernels/amx_tiles.h"
#include "kernels/attention_bf16.h"

namespace scd::kernels::cpu {
namespace {

struct AmxProducts {
  static void score(const AttentionArgs& args, const AttentionTile& tile, int64_t first_key, int64_t keys,
                    TileMemory& memory) {
    const int64_t row_bytes = args.kv.head_dim * 2;
    for (int64_t key = 0; key < keys; key += kBf16KeyBlock) {
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

  static void add(int64_t head_dim, int64_t keys, const uint16_t* values, TileMemory& memory) {
    tile_fence();
    constexpr int64_t kSumBytes = kQueries * sizeof(float);
    for (int64_t d = 0; d < head_dim; d += 32) {
      _tile_loadd(0, &memory.sums[d][0], kSumBytes);
      _tile_loadd(1, &memory.sums[d][16], kSumBytes);
      _tile_loadd(2, &memory.sums[d + 16][0], kSumBytes);
      _tile_loadd(3, &memory.sums[d + 16][16], kSumBytes);
      for (int64_t block = 0; block < keys / kBf16KeyBlock; ++block) {
        const uint16_t* from = values + (block * head_dim + d) * kBf16KeyBlock;
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
    tile_fence();
  }
};

}  // namespace

void attend_amx(const AttentionArgs& args, const AttentionTile& tile, const uint16_t* transposed_values) {
  const AmxTiles tiles;
  attend_bf16<AmxProducts>(args, tile, transposed_values);
}

}  // namespace scd::kernels::cpu
