// Two launches a layer, whatever sets the rows have: x A^T with a warp a (row, rank), kept; then its product with B, a
// thread an output. Bounded by launches for few rows, by reading the factors again for each row otherwise.
#include <algorithm>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/low_rank_weights.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kMostRankBlocks = 16;  // of a row; each takes several ranks where there are more

using Sets = const LowRankEntry* const*;

// Null: the row has no such factors.
__device__ inline const LowRankEntry* factors_of(Sets sets, int64_t row, int64_t index) {
  const LowRankEntry* set = sets[row];
  return set == nullptr || set[index].memory == nullptr ? nullptr : set + index;
}

template <class Weight, class X>
__device__ void shrink(const X* row, const LowRankEntry& factors, float* low) {
  const auto* const a = reinterpret_cast<const Weight*>(factors.memory);
  for (int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; k < factors.rank; k += gridDim.x * kWarps) {
    float sum = 0.0f;
    for (int64_t i = threadIdx.x % 32; i < factors.in; i += 32) {
      Weight rounded;
      store(to_float(row[i]), &rounded);
      sum += to_float(rounded) * to_float(a[k * factors.in + i]);
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (threadIdx.x % 32 != 0) continue;
    Weight rounded;
    store(sum, &rounded);
    low[k] = to_float(rounded);
  }
}

template <class X>
__global__ void shrink_kernel(const X* x, int64_t x_stride, Sets sets, int64_t index, int64_t first_row, float* low,
                              int64_t low_stride) {
  const int64_t row = first_row + blockIdx.y;
  const LowRankEntry* const factors = factors_of(sets, row, index);
  if (factors == nullptr) return;
  if (factors->narrow) {
    shrink<__nv_bfloat16>(x + row * x_stride, *factors, low + row * low_stride);
  } else {
    shrink<float>(x + row * x_stride, *factors, low + row * low_stride);
  }
}

// Of one output of a part.
template <class Weight>
__device__ float expanded(const float* low, const LowRankEntry& factors, const LowRankWeights::Part& part,
                          int64_t output) {
  const auto* const b = reinterpret_cast<const Weight*>(factors.memory) + part.b_at;
  float sum = 0.0f;
  for (int64_t k = 0; k < part.rank; ++k) sum += low[part.first_rank + k] * to_float(b[k * part.outputs + output]);
  return sum;
}

template <class Y>
__global__ void expand_kernel(const float* low, int64_t low_stride, Sets sets, int64_t index, int64_t first_row, Y* y,
                              int64_t y_stride) {
  const int64_t row = first_row + blockIdx.y;
  const LowRankEntry* const factors = factors_of(sets, row, index);
  if (factors == nullptr) return;
  const int64_t column = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (int64_t i = 0; i < factors->part_count; ++i) {
    const LowRankWeights::Part& part = factors->parts[i];
    const int64_t output = column - part.first_output;
    if (output < 0 || output >= part.outputs) continue;
    const float* const from = low + row * low_stride;
    const float sum = factors->narrow ? expanded<__nv_bfloat16>(from, *factors, part, output)
                                      : expanded<float>(from, *factors, part, output);
    Y* const to = y + row * y_stride + column;
    store(to_float(*to) + sum, to);
  }
}

unsigned blocks_of(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

}  // namespace

void add_low_rank(ConstMatrix x, Matrix y, LowRankRows& rows, int64_t index, int64_t most_rank) {
  const auto sets = reinterpret_cast<Sets>(rows.sets_there());
  const Matrix low = rows.products(most_rank);
  const unsigned rank_blocks = static_cast<unsigned>(std::min<int64_t>(blocks_of(most_rank, kWarps), kMostRankBlocks));
  for (int64_t first = 0; first < x.rows; first += kMaxGridY) {
    const auto count = static_cast<unsigned>(std::min<int64_t>(x.rows - first, kMaxGridY));
    with_type(x.dtype, [&](auto* of_x) {
      using X = std::remove_pointer_t<decltype(of_x)>;
      shrink_kernel<<<dim3(rank_blocks, count), kThreads, 0, stream()>>>(
          static_cast<const X*>(x.data), x.row_stride, sets, index, first, low.row<float>(0), low.row_stride);
    });
    check_launch("low rank, x A^T");
    with_type(y.dtype, [&](auto* of_y) {
      using Y = std::remove_pointer_t<decltype(of_y)>;
      if constexpr (!std::is_same_v<Y, __half>) {
        expand_kernel<<<dim3(blocks_of(y.columns, kThreads), count), kThreads, 0, stream()>>>(
            low.row<float>(0), low.row_stride, sets, index, first, static_cast<Y*>(y.data), y.row_stride);
      }
    });
    check_launch("low rank, B");
  }
}

}  // namespace scd::kernels::cuda
