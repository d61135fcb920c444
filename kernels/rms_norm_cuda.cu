// A block takes a row (or, of the norms per head, a warp a head); the row is read twice, the second time from cache.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/rms_limits.h"

namespace scd::kernels::cuda {
namespace {

constexpr int64_t kFewRows = 64;  // then a row has more threads, as the GPU is not full

// kWidth neighbouring floats of a row.
template <int kWidth>
struct alignas(kWidth * sizeof(float)) Floats {
  float values[kWidth];
};
template <int kWidth, class T>
struct alignas(kWidth * sizeof(T)) Elements {
  T values[kWidth];
};

// A thread takes kWidth columns at once.
template <int kWidth, class Out>
__global__ void norm_kernel(const float* x, int64_t x_stride, const float* weight, float epsilon, Out* y,
                            int64_t y_stride, int n) {
  const int64_t row = blockIdx.x;
  const float* values = x + row * x_stride;
  const int step = static_cast<int>(blockDim.x) * kWidth;
  float squares = 0.0f;
  for (int i = threadIdx.x * kWidth; i < n; i += step) {
    const auto own = *reinterpret_cast<const Floats<kWidth>*>(values + i);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) squares += own.values[e] * own.values[e];
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(n) + epsilon);
  for (int i = threadIdx.x * kWidth; i < n; i += step) {
    const auto own = *reinterpret_cast<const Floats<kWidth>*>(values + i);
    const auto factors = *reinterpret_cast<const Floats<kWidth>*>(weight + i);
    Elements<kWidth, Out> result;
#pragma unroll
    for (int e = 0; e < kWidth; ++e) store(own.values[e] * scale * factors.values[e], result.values + e);
    *reinterpret_cast<Elements<kWidth, Out>*>(y + row * y_stride + i) = result;
  }
}

template <int kWidth, class Out>
void launch_norm(const ConstMatrix& x, const float* weight, float epsilon, const Matrix& y) {
  const unsigned threads = x.rows < kFewRows ? 1024 : 256;
  norm_kernel<kWidth><<<static_cast<unsigned>(x.rows), threads, 0, stream()>>>(
      static_cast<const float*>(x.data), x.row_stride, weight, epsilon, static_cast<Out*>(y.data), y.row_stride,
      static_cast<int>(x.columns));
  check_launch("rms_norm");
}

bool fours(const void* data, int64_t stride) { return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 4 == 0; }

__global__ void norm_heads_kernel(float* x, int64_t stride, int64_t rows, int64_t heads, int64_t head_dim,
                                  const float* weight, float epsilon) {
  const int64_t index = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (index >= rows * heads) return;
  float* values = x + index / heads * stride + index % heads * head_dim;
  const unsigned lane = threadIdx.x % 32;
  float squares = 0.0f;
  for (int64_t i = lane; i < head_dim; i += 32) squares += values[i] * values[i];
  for (int offset = 16; offset > 0; offset /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, offset);
  const float scale = rsqrtf(squares / static_cast<float>(head_dim) + epsilon);
  for (int64_t i = lane; i < head_dim; i += 32) values[i] *= scale * weight[i];
}

template <bool kDivide, class Out>
__global__ void scale_rows_kernel(const float* x, int64_t x_stride, int columns, const float* by, int64_t by_stride,
                                  int by_columns, Out* out, int64_t out_stride) {
  const int64_t row = blockIdx.x;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < by_columns; i += blockDim.x) {
    const float value = by[row * by_stride + i];
    squares += value * value;
  }
  const float mean = block_sum(squares) / static_cast<float>(by_columns) + static_cast<float>(kSmallestSquare);
  const float scale = kDivide ? rsqrtf(mean) : sqrtf(mean);
  for (int i = threadIdx.x; i < columns; i += blockDim.x) {
    store(x[row * x_stride + i] * scale, out + row * out_stride + i);
  }
}

template <bool kDivide, class Out>
void launch_scale_rows(const ConstMatrix& x, const ConstMatrix& by, const Matrix& out) {
  scale_rows_kernel<kDivide><<<static_cast<unsigned>(x.rows), 256, 0, stream()>>>(
      static_cast<const float*>(x.data), x.row_stride, static_cast<int>(x.columns), static_cast<const float*>(by.data),
      by.row_stride, static_cast<int>(by.columns), static_cast<Out*>(out.data), out.row_stride);
  check_launch("a scaling of rows");
}

template <bool kDivide>
void scale_rows(const ConstMatrix& x, const ConstMatrix& by, const Matrix& out) {
  out.dtype == DType::kF32 ? launch_scale_rows<kDivide, float>(x, by, out)
                           : launch_scale_rows<kDivide, __nv_bfloat16>(x, by, out);
}

}  // namespace

void divide_by_rms(ConstMatrix x, ConstMatrix by, Matrix out) { scale_rows<true>(x, by, out); }
void multiply_by_rms(ConstMatrix x, ConstMatrix by, Matrix out) { scale_rows<false>(x, by, out); }

void rms_norm(ConstMatrix x, std::span<const float> weight, float epsilon, Matrix y) {
  const bool wide =
      x.columns % 4 == 0 && fours(x.data, x.row_stride) && fours(weight.data(), 0) && fours(y.data, y.row_stride);
  if (y.dtype == DType::kF32) {
    wide ? launch_norm<4, float>(x, weight.data(), epsilon, y) : launch_norm<1, float>(x, weight.data(), epsilon, y);
  } else {
    wide ? launch_norm<4, __nv_bfloat16>(x, weight.data(), epsilon, y)
         : launch_norm<1, __nv_bfloat16>(x, weight.data(), epsilon, y);
  }
}

void rms_norm_heads(Matrix x, int64_t head_dim, std::span<const float> weight, float epsilon) {
  constexpr unsigned kThreads = 256;
  const int64_t heads = x.columns / head_dim;
  const int64_t blocks = (x.rows * heads * 32 + kThreads - 1) / kThreads;
  norm_heads_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream()>>>(
      static_cast<float*>(x.data), x.row_stride, x.rows, heads, head_dim, weight.data(), epsilon);
  check_launch("rms_norm_heads");
}

}  // namespace scd::kernels::cuda
