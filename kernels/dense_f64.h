// Products, factors and eigenvectors in double precision on a GPU, by cuBLAS and cuSOLVER: the algebra of calibration.
// Matrices are the host's; each call brings them to the GPU and what it makes back, and waits. On the CPU the
// calibrator has BLAS and LAPACK itself (common/codec/calibration/algebra.h).
// CUDA only: a build without it throws std::invalid_argument.
#pragma once

#include <cstdint>

#include "kernels/device.h"

namespace scd::kernels {

// [rows, columns], column-major as BLAS and LAPACK have them: element (r, c) at data + r + c * stride.
struct ConstColumnsF64 {
  const double* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;
};
struct ColumnsF64 {
  double* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;
  operator ConstColumnsF64() const { return {data, rows, columns, stride}; }
};

// c = op(a) op(b)
struct ProductF64 {
  ConstColumnsF64 a;
  ConstColumnsF64 b;
  ColumnsF64 c;
  bool transpose_a = false;
  bool transpose_b = false;
};
void multiply_f64(const ProductF64& args);

// symmetric [n, n], of which the lower triangle is read, becomes its eigenvectors, columns; values [n], rising. False:
// it did not converge (cuSOLVER's syevd).
bool eigen_f64(ColumnsF64 symmetric, double* values);

// The lower triangle L of L L^T = symmetric, which stays on the GPU.
class CholeskyF64 {
 public:
  // [n, n], of which the lower triangle is read.
  explicit CholeskyF64(ConstColumnsF64 symmetric);
  bool positive_definite() const { return positive_definite_; }

  // Of what is solved: L, then L^T, or either alone.
  struct Parts {
    bool lower = true;
    bool upper = true;
  };
  // right [n, ...] in place: (L L^T)^-1 right, or only L^-1 or L^-T times it.
  void solve(ColumnsF64 right, Parts parts) const;

 private:
  DeviceBuffer factor_;
  int64_t size_ = 0;
  bool positive_definite_ = false;
};

}  // namespace scd::kernels
