#include "common/codec/calibration/latent_fit.h"

#include "common/base/error.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

DenseMatrix to_dense(const MatrixXd& matrix) {
  DenseMatrix dense(matrix.rows(), matrix.cols());
  Eigen::Map<RowMajorF>(dense.values.data(), matrix.rows(), matrix.cols()) = matrix.cast<float>();
  return dense;
}

MatrixXd to_eigen(const DenseMatrix& dense, int64_t rows) {
  return Eigen::Map<const RowMajorF>(dense.values.data(), rows, dense.columns).cast<double>();
}

// The largest eigenvectors first, each with its largest entry positive.
MatrixXd leading_eigenvectors(const MatrixXd& moment, int64_t count, const Algebra& algebra) {
  MatrixXd vectors = algebra.symmetric_eigen(moment).vectors.rightCols(count).rowwise().reverse();
  for (int64_t column = 0; column < count; ++column) {
    Eigen::Index largest = 0;
    vectors.col(column).cwiseAbs().maxCoeff(&largest);
    if (vectors(largest, column) < 0) vectors.col(column) *= -1.0;
  }
  return vectors;
}

}  // namespace

LatentFit fit_shared_latent(const JoinedMoment& joined, int64_t rank, double ridge, const Algebra& algebra) {
  const int64_t a = joined.producer_dims;
  const int64_t b = joined.sum.rows() - a;
  SCD_CHECK(rank >= 1 && rank <= a && b >= 1, "rank of a shared latent");
  if (!joined.sum.allFinite()) throw Error(ErrorCode::kInternal, "calibration: a statistic is not finite");
  const MatrixXd v = leading_eigenvectors(joined.sum, rank, algebra);
  // X_A^T Z with Z = [X_A X_B] V.
  const MatrixXd cross = algebra.product(joined.sum.topRows(a), v);
  const MatrixXd encoder = algebra.solve(joined.sum.topLeftCorner(a, a), ridge, cross);
  return {to_dense(encoder.transpose()), to_dense(v.bottomRows(b).transpose())};
}

DenseMatrix fit_decoder(const JoinedMoment& joined, const DenseMatrix& encoder, double ridge, const Algebra& algebra) {
  const int64_t a = joined.producer_dims;
  const int64_t b = joined.sum.rows() - a;
  SCD_CHECK(encoder.columns == a, "the encoder's input");
  const MatrixXd w = to_eigen(encoder, encoder.rows);
  const MatrixXd codes = algebra.product_with_transposed(algebra.product(w, joined.sum.topLeftCorner(a, a)), w);
  return to_dense(algebra.solve(codes, ridge, algebra.product(w, joined.sum.topRightCorner(a, b))));
}

double relative_loss(const JoinedMoment& joined, const DenseMatrix& encoder, const DenseMatrix& decoder, int64_t rank) {
  const int64_t a = joined.producer_dims;
  const int64_t b = joined.sum.rows() - a;
  const int64_t used = rank > 0 ? rank : encoder.rows;
  SCD_CHECK(encoder.columns == a && decoder.columns == b && used <= encoder.rows && used <= decoder.rows,
            "maps that belong together");
  const MatrixXd map = to_eigen(encoder, used).transpose() * to_eigen(decoder, used);  // [a, b]
  const double energy = joined.sum.bottomRightCorner(b, b).trace();
  const double cross = (joined.sum.topRightCorner(a, b).array() * map.array()).sum();
  const double explained = (map.array() * (joined.sum.topLeftCorner(a, a) * map).array()).sum();
  return energy > 0 ? (energy - 2 * cross + explained) / energy : 0.0;
}

}  // namespace scd
