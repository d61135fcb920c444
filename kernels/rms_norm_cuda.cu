// A block takes a row (or, of the norms per head, a warp a head); the row is read twice, the second time from cache.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"

namespace scd::kernels::cuda {
namespace {

constexpr int64_t kFewRows = 64;  // then a row has more threads, as the GPU is not full

// x += delta first, where delta is given.
template <class Out>
__global__ void norm_kernel(float* x, int64_t x_stride, const float* delta, int64_t delta_stride, const float* weight,
                            float epsilon, Out* y, int64_t y_stride, int64_t n) {
  const int64_t row = blockIdx.x;
  float* values = x + row * x_stride;
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    float value = values[i];
    if (delta != nullptr) {
      value += delta[row * delta_stride + i];
      values[i] = value;
    }
    squares += value * value;
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(n) + epsilon);
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) store(values[i] * scale * weight[i], y + row * y_stride + i);
}

void norm(const Matrix& x, const ConstMatrix& delta, std::span<const float> weight, float epsilon, const Matrix& y) {
  const unsigned threads = x.rows < kFewRows ? 1024 : 256;
  auto* from = static_cast<float*>(x.data);
  const auto* added = static_cast<const float*>(delta.data);
  const auto grid = static_cast<unsigned>(x.rows);
  if (y.dtype == DType::kF32) {
    norm_kernel<<<grid, threads, 0, stream()>>>(from, x.row_stride, added, delta.row_stride, weight.data(), epsilon,
                                                static_cast<float*>(y.data), y.row_stride, x.columns);
  } else {
    norm_kernel<<<grid, threads, 0, stream()>>>(from, x.row_stride, added, delta.row_stride, weight.data(), epsilon,
                                                static_cast<__nv_bfloat16*>(y.data), y.row_stride, x.columns);
  }
  check_launch("rms_norm");
}

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

}  // namespace

void rms_norm(ConstMatrix x, std::span<const float> weight, float epsilon, Matrix y) {
  // Without a delta nothing of x is written.
  const Matrix values{const_cast<void*>(x.data), x.rows, x.columns, x.row_stride, x.dtype, x.device};
  norm(values, {}, weight, epsilon, y);
}

void add_rms_norm(Matrix residual, ConstMatrix delta, std::span<const float> weight, float epsilon, Matrix y) {
  norm(residual, delta, weight, epsilon, y);
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
