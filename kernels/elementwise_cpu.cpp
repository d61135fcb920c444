// Memory-bound loops; the compiler vectorises them.
#include <algorithm>
#include <cstring>

#include "kernels/cpu_kernels.h"
#include "kernels/cpu_level.h"
#include "kernels/normal.h"
#include "kernels/number.h"
#include "kernels/silu_row.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kParallelElements = 16384;  // below, waking the team costs more than it saves

void expand_row(const ConstMatrix& in, int64_t r, float* out) {
  switch (in.dtype) {
    case DType::kF32: std::memcpy(out, in.row<float>(r), static_cast<size_t>(in.columns) * sizeof(float)); break;
    case DType::kBF16:
      for (int64_t i = 0; i < in.columns; ++i) out[i] = bf16_to_float(in.row<uint16_t>(r)[i]);
      break;
    case DType::kF16:
      for (int64_t i = 0; i < in.columns; ++i) out[i] = f16_to_float(in.row<uint16_t>(r)[i]);
      break;
  }
}

void round_row(const ConstMatrix& in, int64_t r, uint16_t* out) {
  switch (in.dtype) {
    case DType::kF32:
      for (int64_t i = 0; i < in.columns; ++i) out[i] = float_to_bf16(in.row<float>(r)[i]);
      break;
    case DType::kBF16: std::memcpy(out, in.row<uint16_t>(r), static_cast<size_t>(in.columns) * 2); break;
    case DType::kF16:
      for (int64_t i = 0; i < in.columns; ++i) out[i] = float_to_bf16(f16_to_float(in.row<uint16_t>(r)[i]));
      break;
  }
}

template <class Out>
void silu_row(bool avx512, const float* gate, int64_t n, Out* out) {
  if (avx512) {
    silu_mul_row_avx512(gate, gate + n, n, out);
  } else {
    silu_mul_row_portable(gate, gate + n, n, out);
  }
}

}  // namespace

void embedding(ConstMatrix table, Indices indices, Matrix out) {
  const std::span<const int32_t> ids = indices.host;
  for (int64_t r = 0; r < out.rows; ++r) expand_row(table, ids[static_cast<size_t>(r)], out.row<float>(r));
}

void silu_mul(ConstMatrix gate_up, Matrix out) {
  const int64_t n = out.columns;
  const bool avx512 = cpu_level() >= CpuLevel::kAvx512;
#pragma omp parallel for schedule(static) if (out.rows * n > kParallelElements)
  for (int64_t r = 0; r < out.rows; ++r) {
    const float* gate = gate_up.row<float>(r);
    if (out.dtype == DType::kBF16) {
      silu_row(avx512, gate, n, out.row<uint16_t>(r));
    } else {
      silu_row(avx512, gate, n, out.row<float>(r));
    }
  }
}

void convert(ConstMatrix in, Matrix out) {
#pragma omp parallel for schedule(static) if (in.rows * in.columns > kParallelElements)
  for (int64_t r = 0; r < in.rows; ++r) {
    if (out.dtype == DType::kF32) {
      expand_row(in, r, out.row<float>(r));
    } else {
      round_row(in, r, out.row<uint16_t>(r));
    }
  }
}

void fill_rows(Matrix m, std::span<const float> values) {
  for (int64_t r = 0; r < m.rows; ++r) std::fill_n(m.row<float>(r), m.columns, values[static_cast<size_t>(r)]);
}

void add_bias(Matrix m, std::span<const float> bias) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t i = 0; i < m.columns; ++i) {
      const float value = bias[static_cast<size_t>(i)];
      if (m.dtype == DType::kF32) {
        m.row<float>(r)[i] += value;
      } else {
        BFloat16& to = m.row<BFloat16>(r)[i];
        store_float(load_float(to) + value, to);
      }
    }
  }
}

void fill_normal(Matrix m, uint64_t seed, float deviation) {
#pragma omp parallel for schedule(static) if (m.rows * m.columns > kParallelElements)
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t i = 0; i < m.columns; ++i) {
      const float value = deviation * normal_at(seed, static_cast<uint64_t>(r * m.columns + i));
      if (m.dtype == DType::kF32) {
        m.row<float>(r)[i] = value;
      } else {
        store_float(value, m.row<BFloat16>(r)[i]);
      }
    }
  }
}

}  // namespace scd::kernels::cpu
