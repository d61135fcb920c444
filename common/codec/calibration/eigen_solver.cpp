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

}  // namespace scd
