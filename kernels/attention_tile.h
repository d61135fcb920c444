// The unit of work of attention: a tile of queries of one sequence that share a KV head, against a range of its keys.
// The queries of a tile lie in the lanes of vectors: scores and sums are kept transposed, [key][query] and
// [head_dim][query], so that maxima, sums and rescaling of the running softmax never cross lanes.
#pragma once

#include <cstdint>

#include "kernels/attention.h"

namespace scd::kernels::cpu {

struct AttentionTile {
  const SequenceRows* sequence = nullptr;
  int64_t kv_head = 0;
  int64_t first_query = 0;  // query q of the KV head: row q / group, query head kv_head * group + q % group
  int64_t queries = 0;
  int64_t first_key = 0;  // keys [first_key, last_key) of the sequence
  int64_t last_key = 0;
  // Null: the result goes to the output. Else [head_dim + 2][kTileQueries]: sums of values, then the largest score and
  // the sum of weights of every query, to be merged with those of the other key ranges.
  float* partial = nullptr;
};

inline constexpr int64_t kTileQueries = 64;    // at most, and the row length of a partial
inline constexpr float kMaskedScore = -1e30f;  // finite: a row that saw masked keys only is wiped by its first real one

// Floats of scratch that a tile needs.
int64_t attention_scratch_floats(int64_t head_dim);

void attend_portable(const AttentionArgs& args, const AttentionTile& tile, float* scratch);
void attend_avx512(const AttentionArgs& args, const AttentionTile& tile, float* scratch);

// With BF16 products: BF16 pages of a multiple of 16 tokens, heads of a multiple of 32 up to kBf16HeadDim; tiles of
// kBf16TileQueries.
inline constexpr int64_t kBf16TileQueries = 32;
inline constexpr int64_t kBf16HeadDim = 256;
inline constexpr int64_t kBf16KeyBlock = 32;
// The values of a sequence's head, transposed: [key blocks][head_dim][32] BF16, zeros past the last key.
void transpose_values_bf16(const PagedKv& kv, const SequenceRows& sequence, int64_t kv_head, uint16_t* transposed);
void attend_amx(const AttentionArgs& args, const AttentionTile& tile, const uint16_t* transposed_values);
void attend_avx512_bf16(const AttentionArgs& args, const AttentionTile& tile, const uint16_t* transposed_values);

}  // namespace scd::kernels::cpu
