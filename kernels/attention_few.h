// One tile of attention for one to eight queries (decoding): lanes are elements of a head, so that no lane idles where
// few queries share a KV head. Heads of a multiple of the vector width. Bound: reading K and V.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/attention_tile.h"
#include "kernels/lanes.h"
#include "kernels/number.h"

namespace scd::kernels::cpu {
namespace {

inline constexpr int kFewQueries = 8;

template <int Queries>
struct FewState {
  int64_t head_dim;
  float* queries;  // [Queries][head_dim], scaled
  float* sums;     // [Queries][head_dim]
  Lanes products[Queries][kLanes];
  float weights[Queries][kLanes];
  float largest[Queries];
  float total[Queries];
  int32_t positions[Queries];
};

template <int Queries>
void load_few_queries(const AttentionArgs& args, const AttentionTile& tile, FewState<Queries>& state) {
  const int64_t group = args.query_heads / args.kv.kv_heads;
  for (int q = 0; q < Queries; ++q) {
    const int64_t query = tile.first_query + q;
    const int64_t row = query / group;
    const float* from = args.queries.row<float>(tile.sequence->first_row + row) +
                        (tile.kv_head * group + query % group) * state.head_dim;
    for (int64_t d = 0; d < state.head_dim; ++d) state.queries[q * state.head_dim + d] = from[d] * args.scale;
    state.largest[q] = kMaskedScore;
    state.total[q] = 0.0f;
    state.positions[q] = static_cast<int32_t>(tile.sequence->first_position + row);
  }
  std::fill_n(state.sums, Queries * state.head_dim, 0.0f);
}

template <class Stored>
void find_tokens(const PagedKv& kv, const AttentionTile& tile, const void* pages, int64_t first, int64_t count,
                 const Stored* (&tokens)[kLanes]) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = first + i;
    const int64_t page = tile.sequence->page_ids[static_cast<size_t>(position / kv.page_tokens)];
    tokens[i] = static_cast<const Stored*>(pages) +
                ((page * kv.kv_heads + tile.kv_head) * kv.page_tokens + position % kv.page_tokens) * kv.head_dim;
  }
}

template <int Queries, class Stored>
void multiply_keys(const Stored* (&tokens)[kLanes], int64_t count, FewState<Queries>& state) {
  for (int64_t k = 0; k < count; ++k) {
    Lanes products[Queries] = {};
    for (int64_t d = 0; d < state.head_dim; d += kLanes) {
      const Lanes key = load(tokens[k] + d);
      for (int q = 0; q < Queries; ++q) products[q] += key * load(state.queries + q * state.head_dim + d);
    }
    for (int q = 0; q < Queries; ++q) state.products[q][k] = products[q];
  }
  for (int64_t k = count; k < kLanes; ++k) {
    for (int q = 0; q < Queries; ++q) state.products[q][k] = Lanes{};
  }
}

// Products to weights against the running maximum; rescales what was summed before.
template <int Queries>
void weigh_few(const AttentionArgs& args, int64_t first_key, int64_t count, FewState<Queries>& state) {
  IntLanes keys;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    keys[lane] = lane < count ? static_cast<int32_t>(first_key + lane) : INT32_MAX;
  }
  for (int q = 0; q < Queries; ++q) {
    const Lanes scores = sums_of(state.products[q]);
    const int32_t position = state.positions[q];
    const int32_t first_visible =
        args.sliding_window == 0 ? 0 : static_cast<int32_t>(std::max<int64_t>(0, position - args.sliding_window + 1));
    const Lanes visible = keys <= position ? scores : broadcast(kMaskedScore);
    const Lanes masked = keys >= first_visible ? visible : broadcast(kMaskedScore);
    const float largest = std::max(state.largest[q], largest_of(masked));
    const Lanes weights = exponential(masked - largest);
    store(weights, state.weights[q]);
    float rescale = 1.0f;
    if (largest != state.largest[q]) {
      rescale = exponential(broadcast(state.largest[q] - largest))[0];
      for (int64_t d = 0; d < state.head_dim; ++d) state.sums[q * state.head_dim + d] *= rescale;
      state.largest[q] = largest;
    }
    state.total[q] = state.total[q] * rescale + sum_of(weights);
  }
}

template <int Queries, class Stored>
void add_few_values(const Stored* (&tokens)[kLanes], int64_t count, FewState<Queries>& state) {
  for (int64_t d = 0; d < state.head_dim; d += kLanes) {
    Lanes sums[Queries];
    for (int q = 0; q < Queries; ++q) sums[q] = load(state.sums + q * state.head_dim + d);
    for (int64_t k = 0; k < count; ++k) {
      const Lanes value = load(tokens[k] + d);
      for (int q = 0; q < Queries; ++q) sums[q] += value * broadcast(state.weights[q][k]);
    }
    for (int q = 0; q < Queries; ++q) store(sums[q], state.sums + q * state.head_dim + d);
  }
}

template <int Queries>
void store_few(const AttentionArgs& args, const AttentionTile& tile, const FewState<Queries>& state) {
  const int64_t group = args.query_heads / args.kv.kv_heads;
  for (int q = 0; q < Queries; ++q) {
    const float* sums = state.sums + q * state.head_dim;
    if (tile.partial != nullptr) {
      for (int64_t d = 0; d < state.head_dim; ++d) tile.partial[d * kTileQueries + q] = sums[d];
      tile.partial[state.head_dim * kTileQueries + q] = state.largest[q];
      tile.partial[(state.head_dim + 1) * kTileQueries + q] = state.total[q];
      continue;
    }
    const int64_t query = tile.first_query + q;
    const int64_t row = tile.sequence->first_row + query / group;
    const int64_t column = (tile.kv_head * group + query % group) * state.head_dim;
    const Lanes inverse = broadcast(1.0f / state.total[q]);
    for (int64_t d = 0; d < state.head_dim; d += kLanes) {
      const Lanes result = load(sums + d) * inverse;
      if (args.output.dtype == DType::kF32) {
        store(result, args.output.row<float>(row) + column + d);
      } else {
        store(result, args.output.row<uint16_t>(row) + column + d);
      }
    }
  }
}

template <int Queries, class Stored>
void attend_few(const AttentionArgs& args, const AttentionTile& tile, float* scratch) {
  FewState<Queries> state;
  state.head_dim = args.kv.head_dim;
  state.queries = scratch;
  state.sums = scratch + Queries * args.kv.head_dim;
  load_few_queries(args, tile, state);
  for (int64_t first = tile.first_key; first < tile.last_key; first += kLanes) {
    const int64_t count = std::min(kLanes, tile.last_key - first);
    const Stored* keys[kLanes];
    const Stored* values[kLanes];
    find_tokens(args.kv, tile, args.kv.keys, first, count, keys);
    find_tokens(args.kv, tile, args.kv.values, first, count, values);
    multiply_keys(keys, count, state);
    weigh_few(args, first, count, state);
    add_few_values(values, count, state);
  }
  store_few(args, tile, state);
}

using AttendFew = void (*)(const AttentionArgs&, const AttentionTile&, float*);
template <class Stored, int... Less>
constexpr std::array<AttendFew, sizeof...(Less)> few_kernels(std::integer_sequence<int, Less...>) {
  return {attend_few<Less + 1, Stored>...};
}

inline bool few_fits(const AttentionArgs& args, const AttentionTile& tile) {
  return tile.queries <= kFewQueries && args.kv.head_dim % kLanes == 0;
}

inline void attend_few_queries(const AttentionArgs& args, const AttentionTile& tile, float* scratch) {
  static constexpr auto kF32 = few_kernels<float>(std::make_integer_sequence<int, kFewQueries>());
  static constexpr auto kBF16 = few_kernels<uint16_t>(std::make_integer_sequence<int, kFewQueries>());
  const auto& kernels = args.kv.dtype == DType::kF32 ? kF32 : kBF16;
  kernels[static_cast<size_t>(tile.queries - 1)](args, tile, scratch);
}

}  // namespace
}  // namespace scd::kernels::cpu
