// The heavy linear algebra of calibration, in double: BLAS and LAPACK on the CPU, cuBLAS and cuSOLVER on a GPU
// (kernels/dense_f64.h). Matrices are the host's on either.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <functional>
#include <optional>

#include "kernels/dense_f64.h"
#include "kernels/device.h"

namespace scd {

using MatrixView = Eigen::Ref<const Eigen::MatrixXd, 0, Eigen::OuterStride<>>;

struct SymmetricEigen {
  Eigen::VectorXd values;   // rising
  Eigen::MatrixXd vectors;  // columns
};

// The factor L of L L^T.
class Cholesky {
 public:
  // Of matrix + lambda I, lambda = ridge * mean diagonal; a floor keeps an all-zero matrix solvable. Throws Error
  // kInternal where it is not positive definite.
  Cholesky(Eigen::MatrixXd matrix, double ridge, kernels::Device device);

  Eigen::MatrixXd solve(Eigen::MatrixXd right) const;        // (L L^T)^-1 right
  Eigen::MatrixXd solve_lower(Eigen::MatrixXd right) const;  // L^-1 right
  Eigen::MatrixXd solve_upper(Eigen::MatrixXd right) const;  // L^-T right

 private:
  std::optional<kernels::CholeskyF64> on_device_;
  Eigen::LLT<Eigen::MatrixXd> on_host_;
};

// For a process whose fits are on a GPU, several at once: what is left to the host is small, and OpenBLAS does not
// change the size of its team while other threads use it.
void keep_host_algebra_on_one_thread();

class Algebra {
 public:
  Algebra() = default;
  explicit Algebra(kernels::Device device) : device_(device) {}

  // How many fits at once use it well: a GPU waits while a fit's matrices come and go, and long for its eigenvectors.
  size_t fits_at_once() const { return device_ == kernels::Device::kCpu ? 1 : 4; }

  Eigen::MatrixXd product(const MatrixView& a, const MatrixView& b) const { return multiply(a, false, b, false); }
  Eigen::MatrixXd product_with_transposed(const MatrixView& a, const MatrixView& b) const {  // a b^T
    return multiply(a, false, b, true);
  }
  Eigen::MatrixXd transposed_product(const MatrixView& a, const MatrixView& b) const {  // a^T b
    return multiply(a, true, b, false);
  }

  // Throws Error kInternal when it does not converge.
  SymmetricEigen symmetric_eigen(Eigen::MatrixXd matrix) const;

  // V diag(change(values)) V^T of a symmetric matrix. What is made of blocks along the diagonal is taken block by
  // block.
  Eigen::MatrixXd with_spectrum(const Eigen::MatrixXd& matrix,
                                const std::function<void(Eigen::VectorXd&)>& change) const;

  Cholesky cholesky(Eigen::MatrixXd matrix, double ridge) const { return {std::move(matrix), ridge, device_}; }

  // (symmetric + lambda I)^-1 right, lambda as above; also where the matrix is only nearly positive (LDL^T).
  Eigen::MatrixXd solve(Eigen::MatrixXd symmetric, double ridge, Eigen::MatrixXd right) const;

 private:
  Eigen::MatrixXd multiply(const MatrixView& a, bool transpose_a, const MatrixView& b, bool transpose_b) const;

  kernels::Device device_ = kernels::Device::kCpu;
};

}  // namespace scd
