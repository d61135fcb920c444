#include "tools/scd/token_weight_fit.h"

#include <Eigen/Cholesky>
#include <utility>

#include "common/base/check.h"

namespace scd {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

TokenWeightFit::TokenWeightFit(std::vector<float> deviations)
    : deviations_(std::move(deviations)),
      joined_(std::ssize(deviations_) + 2),
      map_(VectorXd::Zero(std::ssize(deviations_))) {}

void TokenWeightFit::add(const DenseMatrix& codes, std::span<const double> octaves) {
  SCD_CHECK(codes.rows == std::ssize(deviations_) && codes.columns == std::ssize(octaves), "all components of a unit");
  DenseMatrix rows(codes.columns, codes.rows + 2);
  for (int64_t token = 0; token < codes.columns; ++token) {
    for (int64_t c = 0; c < codes.rows; ++c)
      rows.at(token, c) = codes.at(c, token) / deviations_[static_cast<size_t>(c)];
    rows.at(token, codes.rows) = static_cast<float>(octaves[static_cast<size_t>(token)]);
    rows.at(token, codes.rows + 1) = 1.0f;
  }
  joined_.add(std::as_const(rows).view());
}

void TokenWeightFit::fit(double ridge) {
  SCD_CHECK(joined_.samples() > 0, "tokens to fit on");
  const MatrixXd& sum = joined_.sum();
  const Index last = sum.rows() - 1, octaves = last - 1;
  const VectorXd mean = sum.col(last) / sum(last, last);
  const MatrixXd covariance = sum / sum(last, last) - mean * mean.transpose();
  const MatrixXd penalised = covariance.topLeftCorner(octaves, octaves) + ridge * MatrixXd::Identity(octaves, octaves);
  map_ = penalised.llt().solve(covariance.col(octaves).head(octaves));
  offset_ = mean(octaves) - map_.dot(mean.head(octaves));
  for (Index c = 0; c < octaves; ++c) map_(c) /= deviations_[static_cast<size_t>(c)];
}

std::vector<double> TokenWeightFit::predict(const DenseMatrix& codes) const {
  std::vector<double> octaves(static_cast<size_t>(codes.columns), offset_);
  for (int64_t c = 0; c < codes.rows; ++c) {
    for (int64_t token = 0; token < codes.columns; ++token) {
      octaves[static_cast<size_t>(token)] += map_(c) * codes.at(c, token);
    }
  }
  return octaves;
}

}  // namespace scd
