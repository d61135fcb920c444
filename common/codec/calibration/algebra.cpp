#include "common/codec/calibration/algebra.h"

#include <cblas.h>
#include <lapacke.h>
#include <omp.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

// Below, copies and launches are taken to cost more than they save; not measured.
constexpr Eigen::Index kFewestRows = 256;

bool worth_a_gpu(kernels::Device device, Eigen::Index rows) {
  return device == kernels::Device::kGpu && rows >= kFewestRows;
}

void add_ridge(MatrixXd& matrix, double ridge) {
  matrix.diagonal().array() += ridge * matrix.trace() / static_cast<double>(matrix.rows()) + 1e-30;
}

kernels::ConstColumnsF64 columns_of(const MatrixView& m) { return {m.data(), m.rows(), m.cols(), m.outerStride()}; }
kernels::ColumnsF64 columns_of(MatrixXd& m) { return {m.data(), m.rows(), m.cols(), m.rows()}; }

}  // namespace

Cholesky::Cholesky(MatrixXd matrix, double ridge, kernels::Device device) {
  add_ridge(matrix, ridge);
  bool found = false;
  if (worth_a_gpu(device, matrix.rows())) {
    on_device_.emplace(columns_of(matrix));
    found = on_device_->positive_definite();
  } else {
    on_host_.compute(matrix);
    found = on_host_.info() == Eigen::Success;
  }
  if (!found) {
    throw Error(ErrorCode::kInternal, "calibration: a covariance is not positive definite; raise --ridge");
  }
}

MatrixXd Cholesky::solve(MatrixXd right) const {
  if (right.size() == 0) return right;
  if (!on_device_) return on_host_.solve(right);
  on_device_->solve(columns_of(right), {});
  return right;
}

MatrixXd Cholesky::solve_lower(MatrixXd right) const {
  if (right.size() == 0) return right;
  if (!on_device_) return on_host_.matrixL().solve(right);
  on_device_->solve(columns_of(right), {.upper = false});
  return right;
}

MatrixXd Cholesky::solve_upper(MatrixXd right) const {
  if (right.size() == 0) return right;
  if (!on_device_) return on_host_.matrixU().solve(right);
  on_device_->solve(columns_of(right), {.lower = false});
  return right;
}

MatrixXd Algebra::multiply(const MatrixView& a, bool transpose_a, const MatrixView& b, bool transpose_b) const {
  MatrixXd c(transpose_a ? a.cols() : a.rows(), transpose_b ? b.rows() : b.cols());
  const bool empty = c.size() == 0 || a.size() == 0;
  if (!empty && worth_a_gpu(device_, std::max(c.rows(), c.cols()))) {
    kernels::multiply_f64({columns_of(a), columns_of(b), columns_of(c), transpose_a, transpose_b});
  } else if (transpose_a) {
    c.noalias() = a.transpose() * b;
  } else if (transpose_b) {
    c.noalias() = a * b.transpose();
  } else {
    c.noalias() = a * b;
  }
  return c;
}

MatrixXd Algebra::solve(MatrixXd symmetric, double ridge, MatrixXd right) const {
  add_ridge(symmetric, ridge);
  if (worth_a_gpu(device_, symmetric.rows())) {
    const kernels::CholeskyF64 factor(columns_of(std::as_const(symmetric)));
    if (factor.positive_definite()) {
      factor.solve(columns_of(right), {});
      return right;
    }
  }
  return symmetric.ldlt().solve(right);
}

SymmetricEigen Algebra::symmetric_eigen(MatrixXd matrix) const {
  SymmetricEigen eigen{VectorXd(matrix.rows()), {}};
  bool converged = false;
  if (worth_a_gpu(device_, matrix.rows())) {
    converged = kernels::eigen_f64(columns_of(matrix), eigen.values.data());
  } else {
    const auto size = static_cast<lapack_int>(matrix.rows());
    converged = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'L', size, matrix.data(), size, eigen.values.data()) == 0;
  }
  if (!converged) throw Error(ErrorCode::kInternal, "calibration: eigenvalues did not converge");
  eigen.vectors = std::move(matrix);
  return eigen;
}

void keep_host_algebra_on_one_thread() {
  const int threads = omp_get_max_threads();
  openblas_set_num_threads(1);
  omp_set_num_threads(threads);  // which it set, too
}

MatrixXd Algebra::with_spectrum(const MatrixXd& matrix, const std::function<void(VectorXd&)>& change) const {
  MatrixXd changed = MatrixXd::Zero(matrix.rows(), matrix.cols());
  for (Eigen::Index first = 0; first < matrix.rows();) {
    Eigen::Index end = first + 1;
    for (Eigen::Index column = first; column < end; ++column) {
      Eigen::Index last = matrix.rows();  // of what is not zero below
      while (last > end && matrix(last - 1, column) == 0) --last;
      end = last;
    }
    auto [values, vectors] = symmetric_eigen(matrix.block(first, first, end - first, end - first));
    change(values);
    changed.block(first, first, end - first, end - first) =
        product_with_transposed(vectors * values.asDiagonal(), vectors);
    first = end;
  }
  return changed;
}

}  // namespace scd
