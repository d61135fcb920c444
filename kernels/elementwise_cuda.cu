// Memory-bound: a thread moves 8 neighbouring elements where rows allow it, else one.
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/elementwise_cuda.cuh"
#include "kernels/normal.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kThreads = kElementThreads;
constexpr int kVector = 8;

// kVector elements at once, 16 or 32 bytes aligned.
template <class T>
struct alignas(sizeof(T) * kVector > 16 ? 16 : sizeof(T) * kVector) Pack {
  T values[kVector];
};

bool vector_rows(const ConstMatrix& m, int64_t columns) {
  const auto address = reinterpret_cast<uintptr_t>(m.data);
  return columns % kVector == 0 && m.row_stride % kVector == 0 && address % 16 == 0;
}

__device__ float silu(float x) { return x / (1.0f + __expf(-x)); }

template <class In, class Out>
__global__ void silu_mul_packs(const In* gate_up, int64_t in_stride, Out* out, int64_t out_stride, int64_t rows,
                               int64_t n) {
  const int64_t column = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kVector;
  if (column >= n) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const auto gate = *reinterpret_cast<const Pack<In>*>(gate_up + row * in_stride + column);
    const auto up = *reinterpret_cast<const Pack<In>*>(gate_up + row * in_stride + n + column);
    Pack<Out> result;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      store(silu(to_float(gate.values[i])) * to_float(up.values[i]), result.values + i);
    }
    *reinterpret_cast<Pack<Out>*>(out + row * out_stride + column) = result;
  }
}

template <class In, class Out>
void silu_mul_of(const ConstMatrix& gate_up, const Matrix& out) {
  const auto* in = static_cast<const In*>(gate_up.data);
  auto* to = static_cast<Out*>(out.data);
  const int64_t n = out.columns, in_stride = gate_up.row_stride, out_stride = out.row_stride;
  if (vector_rows(gate_up, n) && vector_rows(out, n)) {
    const dim3 grid(static_cast<unsigned>((n / kVector + kThreads - 1) / kThreads),
                    static_cast<unsigned>(out.rows < kMaxGridY ? out.rows : kMaxGridY));
    silu_mul_packs<<<grid, kThreads, 0, stream()>>>(in, in_stride, to, out_stride, out.rows, n);
    check_launch("silu_mul");
    return;
  }
  for_each(
      out.rows, n,
      [=] __device__(int64_t row, int64_t column) {
        const float gate = to_float(in[row * in_stride + column]);
        const float up = to_float(in[row * in_stride + n + column]);
        store(silu(gate) * up, to + row * out_stride + column);
      },
      "silu_mul");
}

template <class In, class Out>
void convert_of(const ConstMatrix& in, const Matrix& out) {
  const auto* from = static_cast<const In*>(in.data);
  auto* to = static_cast<Out*>(out.data);
  const int64_t in_stride = in.row_stride, out_stride = out.row_stride;
  for_each(
      in.rows, in.columns,
      [=] __device__(int64_t row, int64_t column) {
        store(to_float(from[row * in_stride + column]), to + row * out_stride + column);
      },
      "convert");
}

template <class T>
void embedding_of(const ConstMatrix& table, const int32_t* ids, const Matrix& out) {
  const auto* from = static_cast<const T*>(table.data);
  auto* to = static_cast<float*>(out.data);
  const int64_t in_stride = table.row_stride, out_stride = out.row_stride;
  for_each(
      out.rows, out.columns,
      [=] __device__(int64_t row, int64_t column) {
        to[row * out_stride + column] = to_float(from[int64_t{ids[row]} * in_stride + column]);
      },
      "embedding");
}

template <class T>
void add_bias_to(T* to, const Matrix& m, const float* values) {
  const int64_t stride = m.row_stride;
  for_each(
      m.rows, m.columns,
      [=] __device__(int64_t row, int64_t column) {
        T* element = to + row * stride + column;
        store(to_float(*element) + values[column], element);
      },
      "add_bias");
}

template <class T>
void fill_normal_of(T* to, const Matrix& m, uint64_t seed, float deviation) {
  const int64_t stride = m.row_stride, columns = m.columns;
  for_each(
      m.rows, columns,
      [=] __device__(int64_t row, int64_t column) {
        const auto counter = static_cast<uint64_t>(row * columns + column);
        store(deviation * normal_at(seed, counter), to + row * stride + column);
      },
      "fill_normal");
}

}  // namespace

void embedding(ConstMatrix table, Indices ids, Matrix out) {
  const int32_t* rows = on_device(ids);
  with_output(table.dtype, [&](auto* of) { embedding_of<std::remove_pointer_t<decltype(of)>>(table, rows, out); });
}

void silu_mul(ConstMatrix gate_up, Matrix out) {
  with_output(gate_up.dtype, [&](auto* in) {
    with_output(out.dtype, [&](auto* to) {
      silu_mul_of<std::remove_pointer_t<decltype(in)>, std::remove_pointer_t<decltype(to)>>(gate_up, out);
    });
  });
}

void convert(ConstMatrix in, Matrix out) {
  with_type(in.dtype, [&](auto* from) {
    with_output(out.dtype, [&](auto* to) {
      convert_of<std::remove_pointer_t<decltype(from)>, std::remove_pointer_t<decltype(to)>>(in, out);
    });
  });
}

void fill_rows(Matrix m, std::span<const float> values) {
  auto* to = static_cast<float*>(m.data);
  const float* of_row = values.data();
  const int64_t stride = m.row_stride;
  for_each(
      m.rows, m.columns, [=] __device__(int64_t row, int64_t column) { to[row * stride + column] = of_row[row]; },
      "fill_rows");
}

void add_bias(Matrix m, std::span<const float> bias) {
  const float* values = bias.data();
  with_output(m.dtype, [&](auto* typed) { add_bias_to(static_cast<decltype(typed)>(m.data), m, values); });
}

void fill_normal(Matrix m, uint64_t seed, float deviation) {
  with_output(m.dtype, [&](auto* typed) { fill_normal_of(static_cast<decltype(typed)>(m.data), m, seed, deviation); });
}

}  // namespace scd::kernels::cuda
