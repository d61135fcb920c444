// Eigenvalues and eigenvectors of symmetric matrices (LAPACK's divide and conquer, dsyevd).
#pragma once

#include <Eigen/Core>
#include <functional>

namespace scd {

struct SymmetricEigen {
  Eigen::VectorXd values;   // rising
  Eigen::MatrixXd vectors;  // columns
};

// Throws Error kInternal when it does not converge.
SymmetricEigen symmetric_eigen(Eigen::MatrixXd matrix);

// V diag(change(values)) V^T of a symmetric matrix. What is made of blocks along the diagonal is taken block by block.
Eigen::MatrixXd with_spectrum(const Eigen::MatrixXd& matrix, const std::function<void(Eigen::VectorXd&)>& change);

}  // namespace scd
