// Two launches a group: x A^T with a warp a (row, rank), kept in scratch; then its product with B, a thread an output.
// Bounded by launches for few rows, by reading the factors again for each row otherwise.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/low_rank_weights.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

template <class X, class Weight>
__global__ void shrink_kernel(const X* x, int64_t x_stride, const int32_t* rows, const Weight* a, int64_t in,
                              int64_t rank, float* low) {
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (k >= rank) return;
  const X* row = x + rows[blockIdx.y] * x_stride;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x % 32; i < in; i += 32) {
    Weight rounded;
    store(to_float(row[i]), &rounded);
    sum += to_float(rounded) * to_float(a[k * in + i]);
  }
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 != 0) return;
  Weight rounded;
  store(sum, &rounded);
  low[blockIdx.y * rank + k] = to_float(rounded);
}

template <class Y, class Weight>
__global__ void expand_kernel(const float* low, int64_t low_stride, const int32_t* rows, const Weight* b,
                              LowRankWeights::Part part, Y* y, int64_t y_stride) {
  const int64_t output = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (output >= part.outputs) return;
  const float* from = low + blockIdx.y * low_stride + part.first_rank;
  float sum = 0.0f;
  for (int64_t k = 0; k < part.rank; ++k) sum += from[k] * to_float(b[k * part.outputs + output]);
  Y* to = y + rows[blockIdx.y] * y_stride + part.first_output + output;
  store(to_float(*to) + sum, to);
}

unsigned blocks_of(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

struct Call {
  const LowRankWeights& weights;
  ConstMatrix x;
  Matrix y;
  const int32_t* rows;  // on the device
  int64_t count;        // at most kMaxGridY
};

template <class Weight>
void add_rows(const Call& call) {
  const LowRankWeights& weights = call.weights;
  auto* low = reinterpret_cast<float*>(
      device_scratch(Slot::kLowRank, static_cast<size_t>(call.count * weights.rank) * sizeof(float)));
  const auto rows = static_cast<unsigned>(call.count);
  with_type(call.x.dtype, [&](auto* of_x) {
    using X = std::remove_pointer_t<decltype(of_x)>;
    shrink_kernel<<<dim3(blocks_of(weights.rank, kWarps), rows), kThreads, 0, stream()>>>(
        static_cast<const X*>(call.x.data), call.x.row_stride, call.rows, weights.a<Weight>(), weights.in, weights.rank,
        low);
  });
  check_launch("low rank, x A^T");
  with_type(call.y.dtype, [&](auto* of_y) {
    using Y = std::remove_pointer_t<decltype(of_y)>;
    if constexpr (!std::is_same_v<Y, __half>) {
      for (const LowRankWeights::Part& part : weights.parts) {
        expand_kernel<<<dim3(blocks_of(part.outputs, kThreads), rows), kThreads, 0, stream()>>>(
            low, weights.rank, call.rows, weights.b<Weight>(part), part, static_cast<Y*>(call.y.data),
            call.y.row_stride);
      }
    }
  });
  check_launch("low rank, B");
}

}  // namespace

void add_low_rank(ConstMatrix x, Matrix y, std::span<const LowRankGroup> groups) {
  for (const LowRankGroup& group : groups) {
    const int32_t* rows = on_device(group.rows);
    for (int64_t first = 0; first < group.rows.size(); first += kMaxGridY) {
      const int64_t left = group.rows.size() - first;
      const Call call{group.factors->weights(), x, y, rows + first, left < kMaxGridY ? left : kMaxGridY};
      if (call.weights.precision == DType::kF32) {
        add_rows<float>(call);
      } else {
        add_rows<__nv_bfloat16>(call);
      }
    }
  }
}

}  // namespace scd::kernels::cuda
