// A tile of a group's rows at a time: x A^T stays in the thread's scratch, then its product with B is added to y.
#include <omp.h>

#include <algorithm>
#include <vector>

#include "kernels/cpu_kernels.h"
#include "kernels/lanes.h"
#include "kernels/low_rank_weights.h"
#include "kernels/number.h"
#include "kernels/scratch.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kSerialMultiplications = int64_t{1} << 17;  // below, waking other threads costs more

float stored(float value) { return value; }
float stored(uint16_t value) { return bf16_to_float(value); }

template <class T>
float dot(const T* a, const float* x, int64_t n) {
  Lanes sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums += load(a + i) * load(x + i);
  float sum = sum_of(sums);
  for (; i < n; ++i) sum += stored(a[i]) * x[i];
  return sum;
}

// sums[0, n) += factor * b
template <class T>
void add_scaled(const T* b, float factor, float* sums, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(load(sums + i) + load(b + i) * factor, sums + i);
  for (; i < n; ++i) sums[i] += stored(b[i]) * factor;
}

// A row of x as the weights' precision has it.
void read_row(const ConstMatrix& x, int64_t row, DType precision, float* to) {
  for (int64_t i = 0; i < x.columns; ++i) {
    to[i] = x.dtype == DType::kF32 ? x.row<float>(row)[i] : bf16_to_float(x.row<uint16_t>(row)[i]);
  }
  if (precision == DType::kF32 || x.dtype == DType::kBF16) return;
  for (int64_t i = 0; i < x.columns; ++i) to[i] = bf16_to_float(float_to_bf16(to[i]));
}

void add_to_row(const float* sums, const Matrix& y, int64_t row, int64_t first, int64_t count) {
  if (y.dtype == DType::kF32) {
    float* to = y.row<float>(row) + first;
    for (int64_t i = 0; i < count; ++i) to[i] += sums[i];
    return;
  }
  uint16_t* to = y.row<uint16_t>(row) + first;
  for (int64_t i = 0; i < count; ++i) to[i] = float_to_bf16(bf16_to_float(to[i]) + sums[i]);
}

template <class T>
void add_rows(const LowRankTile& tile) {
  const LowRankWeights& weights = tile.weights;
  const size_t floats = static_cast<size_t>(weights.in + weights.rank + weights.out);
  auto* x = reinterpret_cast<float*>(scratch(ScratchSlot::kLowRank, floats * sizeof(float)));
  float* low = x + weights.in;
  float* sums = low + weights.rank;
  for (const int32_t row : tile.rows) {
    read_row(tile.x, row, weights.precision, x);
    for (int64_t k = 0; k < weights.rank; ++k) {
      low[k] = dot(weights.a<T>() + k * weights.in, x, weights.in);
      if (sizeof(T) == sizeof(uint16_t)) low[k] = bf16_to_float(float_to_bf16(low[k]));
    }
    for (const LowRankWeights::Part& part : weights.parts) {
      std::fill_n(sums, part.outputs, 0.0f);
      for (int64_t k = 0; k < part.rank; ++k) {
        add_scaled(weights.b<T>(part) + k * part.outputs, low[part.first_rank + k], sums, part.outputs);
      }
      add_to_row(sums, tile.y, row, part.first_output, part.outputs);
    }
  }
}

void add_tile(const LowRankTile& tile) {
  if (tile.weights.in_pairs) return add_low_rank_avx512_bf16(tile);
  if (tile.weights.precision == DType::kF32) return add_rows<float>(tile);
  add_rows<uint16_t>(tile);
}

}  // namespace

void add_low_rank(ConstMatrix x, Matrix y, std::span<const LowRankGroup> groups) {
  int64_t rows = 0, multiplications = 0;
  for (const LowRankGroup& group : groups) {
    const LowRankWeights& weights = group.factors->weights();
    rows += std::ssize(group.rows);
    multiplications += std::ssize(group.rows) * weights.rank * (weights.in + weights.out);
  }
  // Enough pieces for all threads; how rows are cut changes no result.
  const int64_t pieces = 2 * int64_t{omp_get_max_threads()};
  const int64_t tile_rows = std::clamp<int64_t>((rows + pieces - 1) / pieces, 1, kLowRankTileRows);
  thread_local std::vector<LowRankTile> tiles;
  tiles.clear();
  for (const LowRankGroup& group : groups) {
    for (int64_t first = 0; first < std::ssize(group.rows); first += tile_rows) {
      const int64_t count = std::min(tile_rows, std::ssize(group.rows) - first);
      tiles.push_back(
          {group.factors->weights(), x, y, group.rows.subspan(static_cast<size_t>(first), static_cast<size_t>(count))});
    }
  }
  const LowRankTile* const first = tiles.data();
  const auto count = static_cast<int64_t>(tiles.size());
#pragma omp parallel for schedule(dynamic, 1) if (multiplications > kSerialMultiplications)
  for (int64_t i = 0; i < count; ++i) add_tile(first[i]);
}

}  // namespace scd::kernels::cpu
