#include "common/codec/calibration/rate_fit.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <array>
#include <cmath>

#include "common/base/error.h"
#include "common/codec/rd/rd_quantiser.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double kSmallestComponent = 1e-4;  // of the largest
constexpr double kSmallestEigenvalue = 1e-10;

DenseMatrix to_dense(const MatrixXd& matrix) {
  DenseMatrix dense(matrix.rows(), matrix.cols());
  Eigen::Map<RowMajorF>(dense.values.data(), matrix.rows(), matrix.cols()) = matrix.cast<float>();
  return dense;
}

std::vector<float> to_floats(const VectorXd& vector) {
  std::vector<float> floats(static_cast<size_t>(vector.size()));
  for (Eigen::Index i = 0; i < vector.size(); ++i) floats[static_cast<size_t>(i)] = static_cast<float>(vector[i]);
  return floats;
}

// matrix^power of a symmetric positive semidefinite matrix; what is nearly zero stays zero.
MatrixXd power_of(const MatrixXd& matrix, double power) {
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(matrix);
  if (solver.info() != Eigen::Success) throw Error(ErrorCode::kInternal, "calibration: eigenvalues did not converge");
  VectorXd values = solver.eigenvalues();
  const double floor = kSmallestEigenvalue * std::max(values.maxCoeff(), 0.0);
  for (double& value : values) value = value > floor ? std::pow(value, power) : 0.0;
  return solver.eigenvectors() * values.asDiagonal() * solver.eigenvectors().transpose();
}

}  // namespace

RateFit fit_rate(const RegressionMoment& moment, const MatrixXd& metric, double ridge) {
  const int64_t a = moment.producer_dims;
  const int64_t b = moment.sum.rows() - a - 1;
  SCD_CHECK(b >= 1 && metric.rows() == b && metric.cols() == b, "a metric of the consumer's state");
  if (!moment.sum.allFinite() || !metric.allFinite()) {
    throw Error(ErrorCode::kInternal, "calibration: a statistic is not finite");
  }
  const double count = moment.sum(a + b, a + b);
  const VectorXd mean = moment.sum.col(a + b).head(a + b) / count;
  const MatrixXd covariance = moment.sum.topLeftCorner(a + b, a + b) / count - mean * mean.transpose();
  MatrixXd s_xx = covariance.topLeftCorner(a, a);
  s_xx.diagonal().array() += ridge * s_xx.trace() / static_cast<double>(a) + 1e-30;
  const MatrixXd s_xy = covariance.topRightCorner(a, b);
  const MatrixXd s_yy = covariance.bottomRightCorner(b, b);

  const MatrixXd whiten = power_of(s_xx, -0.5);
  const MatrixXd weighted = whiten * s_xy * power_of(metric, 0.5);
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(weighted * weighted.transpose());
  if (solver.info() != Eigen::Success) throw Error(ErrorCode::kInternal, "calibration: the SVD did not converge");
  const VectorXd variances = solver.eigenvalues().reverse();
  const double smallest = kSmallestComponent * kSmallestComponent * std::max(variances[0], 0.0);
  const int64_t kept = std::count_if(variances.begin(), variances.end(), [&](double v) { return v > smallest; });
  MatrixXd directions = solver.eigenvectors().rowwise().reverse().leftCols(kept);
  for (int64_t i = 0; i < kept; ++i) {
    Eigen::Index largest = 0;
    directions.col(i).cwiseAbs().maxCoeff(&largest);
    if (directions(largest, i) < 0) directions.col(i) *= -1.0;
  }
  const VectorXd deviations = variances.head(kept).cwiseMax(0).cwiseSqrt();
  const MatrixXd encoder = deviations.asDiagonal() * directions.transpose() * whiten;
  const MatrixXd decoder = deviations.cwiseInverse().asDiagonal() * directions.transpose() * whiten * s_xy;

  RateFit fit;
  fit.encoder = {to_dense(encoder), to_floats(-(encoder * mean.head(a)))};
  fit.decoder = {to_dense(decoder), to_floats(mean.tail(b))};
  fit.deviations = to_floats(deviations);
  fit.energy = (metric.array() * s_yy.array()).sum();
  fit.unpredictable = std::max(fit.energy - variances.cwiseMax(0).sum(), 0.0);
  return fit;
}

void train_tables(std::span<const ComponentSample> components, RdQuantiserSettings& settings) {
  settings.frequencies = DenseMatrix(kRdTables, kRansSymbols);
  settings.shifts.assign(kRdTables, 0.0f);
  for (size_t table = 0; table < kRdTables; ++table) {
    std::array<uint64_t, kRansSymbols> counts{};
    double shift = 0;
    uint64_t nonzero = 0;
    for (const ComponentSample& component : components) {
      const float step = component.deviation / rd_ratio_of(table);
      for (const float value : component.values) {
        const int32_t q = rd_quantise(value, step);
        const bool inside = std::abs(q) <= 127;
        ++counts[inside ? static_cast<size_t>(q + 128) : size_t{kRdEscape}];
        if (q == 0 || !inside) continue;
        shift += std::abs(value) / step - std::abs(q);
        ++nonzero;
      }
    }
    counts[kRdEscape] = std::max<uint64_t>(counts[kRdEscape], 1);
    const RansFrequencies frequencies = scale_to_frequencies(counts);
    for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
      settings.frequencies.at(static_cast<int64_t>(table), static_cast<int64_t>(symbol)) = frequencies[symbol];
    }
    if (nonzero > 0) settings.shifts[table] = static_cast<float>(shift / static_cast<double>(nonzero));
  }
}

}  // namespace scd
