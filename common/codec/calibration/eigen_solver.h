// Eigenvalues and eigenvectors of symmetric matrices (LAPACK's divide and conquer, dsyevd).
#pragma once

#include <Eigen/Core>

namespace scd {

struct SymmetricEigen {
  Eigen::VectorXd values;   // rising
  Eigen::MatrixXd vectors;  // columns
};

// Throws Error kInternal when it does not converge.
SymmetricEigen symmetric_eigen(Eigen::MatrixXd matrix);

}  // namespace scd
