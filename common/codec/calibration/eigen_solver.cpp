#include "common/codec/calibration/eigen_solver.h"

#include <lapacke.h>

#include <utility>

#include "common/base/error.h"

namespace scd {

SymmetricEigen symmetric_eigen(Eigen::MatrixXd matrix) {
  SymmetricEigen eigen{Eigen::VectorXd(matrix.rows()), {}};
  const auto size = static_cast<lapack_int>(matrix.rows());
  if (LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'L', size, matrix.data(), size, eigen.values.data()) != 0) {
    throw Error(ErrorCode::kInternal, "calibration: eigenvalues did not converge");
  }
  eigen.vectors = std::move(matrix);
  return eigen;
}

Eigen::MatrixXd with_spectrum(const Eigen::MatrixXd& matrix, const std::function<void(Eigen::VectorXd&)>& change) {
  Eigen::MatrixXd changed = Eigen::MatrixXd::Zero(matrix.rows(), matrix.cols());
  for (Eigen::Index first = 0; first < matrix.rows();) {
    Eigen::Index end = first + 1;
    for (Eigen::Index row = first; row < end; ++row) {
      for (Eigen::Index column = matrix.cols(); column-- > end;) {
        if (matrix(row, column) == 0 && matrix(column, row) == 0) continue;
        end = column + 1;
      }
    }
    auto [values, vectors] = symmetric_eigen(matrix.block(first, first, end - first, end - first));
    change(values);
    changed.block(first, first, end - first, end - first) = vectors * values.asDiagonal() * vectors.transpose();
    first = end;
  }
  return changed;
}

}  // namespace scd
