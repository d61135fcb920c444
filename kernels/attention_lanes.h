// One tile of attention in plain vectors, for any head size, page size and dtype of the cache; compiled once per
// instruction set. Bound: fused multiply-adds for many queries, reading K and V for few.
#pragma once

#include <algorithm>

#include "kernels/attention_tile.h"
#include "kernels/lanes.h"
#include "kernels/number.h"

namespace scd::kernels::cpu {
namespace {

inline constexpr int64_t kKeyBlock = 32;
inline constexpr int64_t kKeysAtOnce = 4;

// Everything a tile works on; the arrays are [..][Vectors * kLanes] unless said otherwise.
template <int Vectors>
struct TileState {
  static constexpr int64_t kWidth = Vectors * kLanes;
  int64_t head_dim;
  float* queries;    // [head_dim], scaled
  float* sums;       // [head_dim]
  float* scores;     // [kKeyBlock], then weights
  float* keys;       // [kKeyBlock][head_dim]
  float* values;     // [kKeyBlock][head_dim]
  float* largest;    // one row
  float* total;      // one row
  float* positions;  // one row, exact as floats: positions stay below 2^24

  TileState(int64_t dim, float* scratch) : head_dim(dim) {
    const auto take = [&scratch](int64_t floats) {
      float* taken = scratch;
      scratch += floats;
      return taken;
    };
    queries = take(dim * kWidth);
    sums = take(dim * kWidth);
    scores = take(kKeyBlock * kWidth);
    keys = take(kKeyBlock * dim);
    values = take(kKeyBlock * dim);
    largest = take(kWidth);
    total = take(kWidth);
    positions = take(kWidth);
  }
};

template <int Vectors>
void load_queries(const AttentionArgs& args, const AttentionTile& tile, TileState<Vectors>& state) {
  constexpr int64_t kWidth = TileState<Vectors>::kWidth;
  const int64_t group = args.query_heads / args.kv.kv_heads;
  std::fill_n(state.sums, state.head_dim * kWidth, 0.0f);
  for (int64_t lane = 0; lane < kWidth; ++lane) {
    state.largest[lane] = kMaskedScore;
    state.total[lane] = 0.0f;
    const bool used = lane < tile.queries;
    const int64_t query = tile.first_query + lane;
    const int64_t row = query / group;
    state.positions[lane] = used ? static_cast<float>(tile.sequence->first_position + row) : -1.0f;
    if (!used) {
      for (int64_t d = 0; d < state.head_dim; ++d) state.queries[d * kWidth + lane] = 0.0f;
      continue;
    }
    const float* from = args.queries.row<float>(tile.sequence->first_row + row) +
                        (tile.kv_head * group + query % group) * state.head_dim;
    for (int64_t d = 0; d < state.head_dim; ++d) state.queries[d * kWidth + lane] = from[d] * args.scale;
  }
}

// Keys or values [first, first + count) of the tile's head as floats.
inline void load_tokens(const PagedKv& kv, const AttentionTile& tile, const void* pages, int64_t first, int64_t count,
                        float* to) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = first + i;
    const int64_t page = tile.sequence->page_ids[static_cast<size_t>(position / kv.page_tokens)];
    const int64_t element =
        ((page * kv.kv_heads + tile.kv_head) * kv.page_tokens + position % kv.page_tokens) * kv.head_dim;
    float* row = to + i * kv.head_dim;
    if (kv.dtype == DType::kF32) {
      std::memcpy(row, static_cast<const float*>(pages) + element, static_cast<size_t>(kv.head_dim) * sizeof(float));
      continue;
    }
    const uint16_t* from = static_cast<const uint16_t*>(pages) + element;
    int64_t d = 0;
    for (; d + kLanes <= kv.head_dim; d += kLanes) store(load(from + d), row + d);
    for (; d < kv.head_dim; ++d) {
      const uint32_t bits = static_cast<uint32_t>(from[d]) << 16;
      std::memcpy(row + d, &bits, sizeof(bits));
    }
  }
}

// scores[key][query] = key . query for `Keys` keys at once.
template <int Vectors, int Keys>
void score_keys(TileState<Vectors>& state, int64_t key) {
  constexpr int64_t kWidth = TileState<Vectors>::kWidth;
  Lanes dots[Keys][Vectors] = {};
  for (int64_t d = 0; d < state.head_dim; ++d) {
    Lanes query[Vectors];
    for (int v = 0; v < Vectors; ++v) query[v] = load(state.queries + d * kWidth + v * kLanes);
    for (int k = 0; k < Keys; ++k) {
      const Lanes element = broadcast(state.keys[(key + k) * state.head_dim + d]);
      for (int v = 0; v < Vectors; ++v) dots[k][v] += element * query[v];
    }
  }
  for (int k = 0; k < Keys; ++k) {
    for (int v = 0; v < Vectors; ++v) store(dots[k][v], state.scores + (key + k) * kWidth + v * kLanes);
  }
}

template <int Vectors>
void mask_scores(const AttentionArgs& args, TileState<Vectors>& state, int64_t first_key, int64_t keys) {
  constexpr int64_t kWidth = TileState<Vectors>::kWidth;
  const float window = args.sliding_window == 0 ? 3e38f : static_cast<float>(args.sliding_window);
  for (int64_t k = 0; k < keys; ++k) {
    const Lanes position = broadcast(static_cast<float>(first_key + k));
    for (int v = 0; v < Vectors; ++v) {
      float* score = state.scores + k * kWidth + v * kLanes;
      const Lanes query = load(state.positions + v * kLanes);
      const Lanes masked = broadcast(kMaskedScore);
      const Lanes causal = position <= query ? load(score) : masked;
      store(query - position < broadcast(window) ? causal : masked, score);
    }
  }
}

// Scores to weights against the running maximum; rescales what was summed before.
template <int Vectors>
void weigh(TileState<Vectors>& state, int64_t keys) {
  constexpr int64_t kWidth = TileState<Vectors>::kWidth;
  for (int v = 0; v < Vectors; ++v) {
    float* column = state.scores + v * kLanes;
    const Lanes before = load(state.largest + v * kLanes);
    Lanes largest = before;
    for (int64_t k = 0; k < keys; ++k) largest = larger(largest, load(column + k * kWidth));
    const Lanes rescale = exponential(before - largest);
    Lanes total = load(state.total + v * kLanes) * rescale;
    for (int64_t k = 0; k < keys; ++k) {
      const Lanes weight = exponential(load(column + k * kWidth) - largest);
      store(weight, column + k * kWidth);
      total += weight;
    }
    store(largest, state.largest + v * kLanes);
    store(total, state.total + v * kLanes);
    for (int64_t d = 0; d < state.head_dim; ++d) {
      float* sum = state.sums + d * kWidth + v * kLanes;
      store(load(sum) * rescale, sum);
    }
  }
}

// sums[d][query] += weights[key][query] * value[key][d] for `Dims` elements at once.
template <int Vectors, int Dims>
void add_values(TileState<Vectors>& state, int64_t d, int64_t keys) {
  constexpr int64_t kWidth = TileState<Vectors>::kWidth;
  Lanes sums[Dims][Vectors];
  for (int i = 0; i < Dims; ++i) {
    for (int v = 0; v < Vectors; ++v) sums[i][v] = load(state.sums + (d + i) * kWidth + v * kLanes);
  }
  for (int64_t k = 0; k < keys; ++k) {
    Lanes weight[Vectors];
    for (int v = 0; v < Vectors; ++v) weight[v] = load(state.scores + k * kWidth + v * kLanes);
    for (int i = 0; i < Dims; ++i) {
      const Lanes value = broadcast(state.values[k * state.head_dim + d + i]);
      for (int v = 0; v < Vectors; ++v) sums[i][v] += value * weight[v];
    }
  }
  for (int i = 0; i < Dims; ++i) {
    for (int v = 0; v < Vectors; ++v) store(sums[i][v], state.sums + (d + i) * kWidth + v * kLanes);
  }
}

template <int Vectors>
void store_result(const AttentionArgs& args, const AttentionTile& tile, const TileState<Vectors>& state) {
  constexpr int64_t kWidth = TileState<Vectors>::kWidth;
  if (tile.partial != nullptr) {
    const auto copy_row = [&](int64_t row, const float* from) {
      std::copy_n(from, tile.queries, tile.partial + row * kTileQueries);
    };
    for (int64_t d = 0; d < state.head_dim; ++d) copy_row(d, state.sums + d * kWidth);
    copy_row(state.head_dim, state.largest);
    copy_row(state.head_dim + 1, state.total);
    return;
  }
  const int64_t group = args.query_heads / args.kv.kv_heads;
  for (int64_t lane = 0; lane < tile.queries; ++lane) {
    const int64_t query = tile.first_query + lane;
    const int64_t row = tile.sequence->first_row + query / group;
    const int64_t column = (tile.kv_head * group + query % group) * state.head_dim;
    const float inverse = 1.0f / state.total[lane];
    for (int64_t d = 0; d < state.head_dim; ++d) {
      const float result = state.sums[d * kWidth + lane] * inverse;
      if (args.output.dtype == DType::kF32) {
        args.output.row<float>(row)[column + d] = result;
      } else {
        store_float(result, args.output.row<BFloat16>(row)[column + d]);
      }
    }
  }
}

template <int Vectors>
void attend(const AttentionArgs& args, const AttentionTile& tile, float* scratch) {
  TileState<Vectors> state(args.kv.head_dim, scratch);
  load_queries(args, tile, state);
  const int64_t group = args.query_heads / args.kv.kv_heads;
  const int64_t first_position = tile.sequence->first_position + tile.first_query / group;
  const int64_t last_position = tile.sequence->first_position + (tile.first_query + tile.queries - 1) / group;
  for (int64_t first = tile.first_key; first < tile.last_key; first += kKeyBlock) {
    const int64_t keys = std::min(kKeyBlock, tile.last_key - first);
    load_tokens(args.kv, tile, args.kv.keys, first, keys, state.keys);
    load_tokens(args.kv, tile, args.kv.values, first, keys, state.values);
    int64_t k = 0;
    for (; k + kKeysAtOnce <= keys; k += kKeysAtOnce) score_keys<Vectors, kKeysAtOnce>(state, k);
    for (; k < keys; ++k) score_keys<Vectors, 1>(state, k);
    const bool all_visible =
        first + keys - 1 <= first_position && (args.sliding_window == 0 || first > last_position - args.sliding_window);
    if (!all_visible) mask_scores(args, state, first, keys);
    weigh(state, keys);
    int64_t d = 0;
    for (; d + 4 <= state.head_dim; d += 4) add_values<Vectors, 4>(state, d, keys);
    for (; d < state.head_dim; ++d) add_values<Vectors, 1>(state, d, keys);
  }
  store_result(args, tile, state);
}

// As many vectors as the queries need and the registers hold.
inline void attend_in_lanes(const AttentionArgs& args, const AttentionTile& tile, float* scratch) {
  if (tile.queries <= kLanes) return attend<1>(args, tile, scratch);
  if (tile.queries <= 2 * kLanes) return attend<2>(args, tile, scratch);
  attend<static_cast<int>(kTileQueries / kLanes)>(args, tile, scratch);
}

}  // namespace
}  // namespace scd::kernels::cpu
