// Cuts the batch into tiles, picks the kernel for each sequence, and merges key ranges that were attended apart.
// Nothing here depends on the number of threads, so neither does the result.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention_tile.h"
#include "kernels/cpu_kernels.h"
#include "kernels/cpu_level.h"
#include "kernels/number.h"
#include "kernels/scratch.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kFewTiles = 64;    // below, tiles are split over their keys
constexpr int64_t kSplitKeys = 512;  // keys of a part, at least
constexpr int64_t kMostParts = 128;  // of all tiles together: bounds the memory of partial results

int64_t group_of(const AttentionArgs& args) { return args.query_heads / args.kv.kv_heads; }

bool use_bf16(const AttentionArgs& args, const SequenceRows& sequence) {
  const PagedKv& kv = args.kv;
  return cpu_level() >= CpuLevel::kAvx512Bf16 && kv.dtype == DType::kBF16 && kv.page_tokens % 16 == 0 &&
         kv.head_dim % 32 == 0 && kv.head_dim <= kBf16HeadDim && sequence.rows * group_of(args) >= kBf16TileQueries;
}

int64_t tile_queries(const AttentionArgs& args, const SequenceRows& sequence) {
  return use_bf16(args, sequence) ? kBf16TileQueries : kTileQueries;
}

// The keys that the queries of a tile can see.
void set_keys(const AttentionArgs& args, AttentionTile& tile) {
  const int64_t group = group_of(args);
  const int64_t first_position = tile.sequence->first_position + tile.first_query / group;
  const int64_t last_position = tile.sequence->first_position + (tile.first_query + tile.queries - 1) / group;
  tile.last_key = last_position + 1;
  tile.first_key = args.sliding_window == 0 ? 0 : std::max<int64_t>(0, first_position - args.sliding_window + 1);
  tile.first_key -= tile.first_key % kBf16KeyBlock;
}

// Elements of the transposed values of one head of a sequence.
int64_t head_elements(const AttentionArgs& args, const SequenceRows& sequence) {
  const int64_t keys = sequence.first_position + sequence.rows;
  return (keys + kBf16KeyBlock - 1) / kBf16KeyBlock * kBf16KeyBlock * args.kv.head_dim;
}

struct Plan {
  std::vector<AttentionTile> tiles;   // heads outermost, longest first inside a head
  std::vector<int64_t> first_part;    // per tile, into parts; one more at the end
  std::vector<AttentionTile> parts;   // the tiles again, cut over their keys where that gives the threads work
  std::vector<int64_t> value_offset;  // per sequence, elements into the transposed values; -1: not transposed
  int64_t value_elements = 0;
};

void add_tiles(const AttentionArgs& args, const SequenceRows& sequence, Plan& plan) {
  const int64_t queries = sequence.rows * group_of(args);
  const int64_t step = tile_queries(args, sequence);
  for (int64_t head = 0; head < args.kv.kv_heads; ++head) {
    for (int64_t first = (queries - 1) / step * step; first >= 0; first -= step) {
      AttentionTile tile{
          .sequence = &sequence, .kv_head = head, .first_query = first, .queries = std::min(step, queries - first)};
      set_keys(args, tile);
      plan.tiles.push_back(tile);
    }
  }
}

void split_tiles(const AttentionArgs& args, Plan& plan) {
  const int64_t tiles = static_cast<int64_t>(plan.tiles.size());
  plan.first_part.clear();
  plan.parts.clear();
  for (const AttentionTile& tile : plan.tiles) {
    plan.first_part.push_back(static_cast<int64_t>(plan.parts.size()));
    int64_t parts = 1;
    if (tiles < kFewTiles && !use_bf16(args, *tile.sequence)) {
      parts = std::clamp<int64_t>((tile.last_key - tile.first_key) / kSplitKeys, 1, kMostParts / tiles);
    }
    const int64_t keys = (tile.last_key - tile.first_key + parts - 1) / parts;
    for (int64_t first = tile.first_key; first < tile.last_key; first += keys) {
      AttentionTile part = tile;
      part.first_key = first;
      part.last_key = std::min(tile.last_key, first + keys);
      plan.parts.push_back(part);
    }
  }
  plan.first_part.push_back(static_cast<int64_t>(plan.parts.size()));
}

void make_plan(const AttentionArgs& args, Plan& plan) {
  plan.tiles.clear();
  plan.value_offset.clear();
  plan.value_elements = 0;
  for (const SequenceRows& sequence : args.sequences.host) {
    plan.value_offset.push_back(-1);
    if (sequence.rows == 0) continue;
    add_tiles(args, sequence, plan);
    if (use_bf16(args, sequence)) {
      plan.value_offset.back() = plan.value_elements;
      plan.value_elements += args.kv.kv_heads * head_elements(args, sequence);
    }
  }
  split_tiles(args, plan);
}

void transpose_values(const AttentionArgs& args, const Plan& plan, uint16_t* transposed) {
  const int64_t sequences = static_cast<int64_t>(args.sequences.host.size());
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t head = 0; head < args.kv.kv_heads; ++head) {
      const int64_t offset = plan.value_offset[static_cast<size_t>(s)];
      if (offset < 0) continue;
      const SequenceRows& sequence = args.sequences.host[static_cast<size_t>(s)];
      transpose_values_bf16(args.kv, sequence, head, transposed + offset + head * head_elements(args, sequence));
    }
  }
}

void store_merged(const AttentionArgs& args, const AttentionTile& tile, int64_t lane, std::span<const double> sums,
                  double total) {
  const int64_t group = group_of(args);
  const int64_t query = tile.first_query + lane;
  const int64_t row = tile.sequence->first_row + query / group;
  const int64_t column = (tile.kv_head * group + query % group) * args.kv.head_dim;
  for (int64_t d = 0; d < args.kv.head_dim; ++d) {
    const float result = static_cast<float>(sums[static_cast<size_t>(d)] / total);
    if (args.output.dtype == DType::kF32) {
      args.output.row<float>(row)[column + d] = result;
    } else {
      store_float(result, args.output.row<BFloat16>(row)[column + d]);
    }
  }
}

// Key ranges attended apart: each brings its sums relative to its own largest score.
void merge_parts(const AttentionArgs& args, std::span<const AttentionTile> parts) {
  const int64_t head_dim = args.kv.head_dim;
  std::vector<double> sums(static_cast<size_t>(head_dim));
  for (int64_t lane = 0; lane < parts.front().queries; ++lane) {
    float largest = kMaskedScore;
    for (const AttentionTile& part : parts) largest = std::max(largest, part.partial[head_dim * kTileQueries + lane]);
    std::fill(sums.begin(), sums.end(), 0.0);
    double total = 0.0;
    for (const AttentionTile& part : parts) {
      const double rescale = std::exp(part.partial[head_dim * kTileQueries + lane] - largest);
      total += rescale * part.partial[(head_dim + 1) * kTileQueries + lane];
      for (int64_t d = 0; d < head_dim; ++d) {
        sums[static_cast<size_t>(d)] += rescale * part.partial[d * kTileQueries + lane];
      }
    }
    store_merged(args, parts.front(), lane, sums, total);
  }
}

void attend_part(const AttentionArgs& args, const Plan& plan, const AttentionTile& part, const uint16_t* transposed) {
  const size_t sequence = static_cast<size_t>(part.sequence - args.sequences.host.data());
  if (plan.value_offset[sequence] >= 0) {
    const uint16_t* values =
        transposed + plan.value_offset[sequence] + part.kv_head * head_elements(args, *part.sequence);
    if (cpu_level() >= CpuLevel::kAmx) {
      attend_amx(args, part, values);
    } else {
      attend_avx512_bf16(args, part, values);
    }
    return;
  }
  const auto bytes = static_cast<size_t>(attention_scratch_floats(args.kv.head_dim)) * sizeof(float);
  auto* memory = reinterpret_cast<float*>(scratch(ScratchSlot::kAttention, bytes));
  if (cpu_level() >= CpuLevel::kAvx512) {
    attend_avx512(args, part, memory);
  } else {
    attend_portable(args, part, memory);
  }
}

}  // namespace

void paged_attention(const AttentionArgs& args) {
  thread_local Plan plan;
  make_plan(args, plan);
  const Plan& made = plan;  // the workers must see this thread's plan, not their own
  auto* transposed = reinterpret_cast<uint16_t*>(
      scratch(ScratchSlot::kAttentionValues, static_cast<size_t>(made.value_elements) * sizeof(uint16_t)));
  if (made.value_elements > 0) transpose_values(args, made, transposed);

  const int64_t tiles = static_cast<int64_t>(made.tiles.size());
  const int64_t parts = static_cast<int64_t>(made.parts.size());
  if (parts > tiles) {
    const int64_t floats = (args.kv.head_dim + 2) * kTileQueries;
    auto* partials = reinterpret_cast<float*>(
        scratch(ScratchSlot::kAttentionPartials, static_cast<size_t>(parts * floats) * sizeof(float)));
    for (int64_t part = 0; part < parts; ++part) {
      plan.parts[static_cast<size_t>(part)].partial = partials + part * floats;
    }
  }
#pragma omp parallel for schedule(dynamic, 1) if (parts > 1)
  for (int64_t part = 0; part < parts; ++part) {
    attend_part(args, made, made.parts[static_cast<size_t>(part)], transposed);
  }
  if (parts == tiles) return;
#pragma omp parallel for schedule(dynamic, 1) if (tiles > 1)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = made.first_part[static_cast<size_t>(tile)];
    const int64_t last = made.first_part[static_cast<size_t>(tile) + 1];
    merge_parts(args, std::span(made.parts).subspan(static_cast<size_t>(first), static_cast<size_t>(last - first)));
  }
}

}  // namespace scd::kernels::cpu
