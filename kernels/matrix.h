// What every op takes: a typed, strided, row-major matrix on a device. Ops never own memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace scd::kernels {

enum class Device : uint8_t { kCpu = 0, kGpu = 1 };

// Codes are part of the wire and artifact formats; 3 (FP8) and 4 (INT8) are reserved.
enum class DType : uint8_t { kF32 = 0, kBF16 = 1, kF16 = 2 };

constexpr size_t size_of(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// IEEE bits of a bfloat16: the upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

float to_float(BFloat16 value);
BFloat16 to_bfloat16(float value);  // round to nearest, ties to even; NaN stays NaN

// [rows, columns], element (r, c) at data + (r * row_stride + c) elements.
struct ConstMatrix {
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_stride = 0;
  DType dtype = DType::kF32;
  Device device = Device::kCpu;

  template <class T>
  const T* row(int64_t r) const {
    return static_cast<const T*>(data) + r * row_stride;
  }
};

struct Matrix {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_stride = 0;
  DType dtype = DType::kF32;
  Device device = Device::kCpu;

  template <class T>
  T* row(int64_t r) const {
    return static_cast<T*>(data) + r * row_stride;
  }
  operator ConstMatrix() const { return {data, rows, columns, row_stride, dtype, device}; }
};

// Columns, and rows, [first, first + count) of a matrix of any dtype.
template <class M>
M columns_of(M m, int64_t first, int64_t count) {
  m.data = m.dtype == DType::kF32 ? static_cast<decltype(m.data)>(m.template row<float>(0) + first)
                                  : static_cast<decltype(m.data)>(m.template row<uint16_t>(0) + first);
  m.columns = count;
  return m;
}
template <class M>
M rows_of(M m, int64_t first, int64_t count) {
  m = columns_of(m, first * m.row_stride, m.columns);
  m.rows = count;
  return m;
}

inline Matrix matrix(float* data, int64_t rows, int64_t columns) { return {data, rows, columns, columns}; }
inline ConstMatrix matrix(const float* data, int64_t rows, int64_t columns) { return {data, rows, columns, columns}; }
inline Matrix matrix(BFloat16* data, int64_t rows, int64_t columns) {
  return {data, rows, columns, columns, DType::kBF16};
}
inline ConstMatrix matrix(const BFloat16* data, int64_t rows, int64_t columns) {
  return {data, rows, columns, columns, DType::kBF16};
}

}  // namespace scd::kernels
