#include "common/codec/calibration/rate_fit.h"

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

// Matrices here are of up to gigabytes, so what is done to them value by value is done by all cores, column by column:
// f(column).
template <class F>
void for_columns(const MatrixView& matrix, const F& f) {
#pragma omp parallel for schedule(static)
  for (Eigen::Index column = 0; column < matrix.cols(); ++column) f(column);
}

// minuend - subtrahend
MatrixXd difference(const MatrixView& minuend, MatrixXd subtrahend) {
  for_columns(minuend,
              [&](Eigen::Index column) { subtrahend.col(column) = minuend.col(column) - subtrahend.col(column); });
  return subtrahend;
}

bool all_finite(const MatrixView& matrix) {
  bool finite = true;
#pragma omp parallel for schedule(static) reduction(&& : finite)
  for (Eigen::Index column = 0; column < matrix.cols(); ++column) finite = finite && matrix.col(column).allFinite();
  return finite;
}

// The trace of a b, of symmetric matrices.
double inner_product(const MatrixView& a, const MatrixView& b) {
  VectorXd of_columns(a.cols());
  for_columns(a, [&](Eigen::Index column) { of_columns[column] = a.col(column).dot(b.col(column)); });
  return of_columns.sum();
}

DenseMatrix to_dense(const MatrixView& matrix) {
  constexpr Eigen::Index kRows = 64;  // whose values share cache lines of the source
  DenseMatrix dense(matrix.rows(), matrix.cols());
  Eigen::Map<RowMajorF> to(dense.values.data(), matrix.rows(), matrix.cols());
#pragma omp parallel for schedule(static)
  for (Eigen::Index first = 0; first < matrix.rows(); first += kRows) {
    const Eigen::Index rows = std::min(kRows, matrix.rows() - first);
    to.middleRows(first, rows) = matrix.middleRows(first, rows).cast<float>();
  }
  return dense;
}

// Columns of the one are rows of the other: a copy in order.
DenseMatrix transposed_to_dense(const MatrixXd& matrix) {
  DenseMatrix dense(matrix.cols(), matrix.rows());
  Eigen::Map<Eigen::MatrixXf> to(dense.values.data(), matrix.rows(), matrix.cols());
  for_columns(matrix, [&](Eigen::Index column) { to.col(column) = matrix.col(column).cast<float>(); });
  return dense;
}

MatrixXd transposed_to_doubles(const DenseMatrix& dense) {
  const Eigen::Map<const Eigen::MatrixXf> from(dense.values.data(), dense.columns, dense.rows);
  MatrixXd matrix(dense.columns, dense.rows);
  for_columns(matrix, [&](Eigen::Index column) { matrix.col(column) = from.col(column).cast<double>(); });
  return matrix;
}

std::vector<float> to_floats(const VectorXd& vector) {
  std::vector<float> floats(static_cast<size_t>(vector.size()));
  for (Eigen::Index i = 0; i < vector.size(); ++i) floats[static_cast<size_t>(i)] = static_cast<float>(vector[i]);
  return floats;
}

// G^1/2 of a symmetric positive semidefinite matrix; what is nearly zero stays zero.
MatrixXd square_root(const MatrixXd& matrix, const Algebra& algebra) {
  return algebra.with_spectrum(matrix, [](VectorXd& values) {
    const double floor = kSmallestEigenvalue * std::max(values.maxCoeff(), 0.0);
    for (double& value : values) value = value > floor ? std::sqrt(value) : 0.0;
  });
}

// Covariances of the parts of a moment, which outlives it: each is made when it is asked for, as all of them are
// gigabytes.
class Covariances {
 public:
  explicit Covariances(const RegressionMoment& moment)
      : x(moment.source_dims), y(moment.target_dims), h(moment.anchor_dims()), sum_(moment.sum) {
    SCD_CHECK(x >= 1 && y >= 1 && h >= 0, "a moment of rows [x y h 1]");
    const Eigen::Index dims = x + y + h;
    count_ = sum_(dims, dims);
    mean = sum_.col(dims).head(dims) / count_;
  }
  MatrixXd xx() const { return block(0, 0, x, x); }
  MatrixXd xy() const { return block(0, x, x, y); }
  MatrixXd xh() const { return block(0, x + y, x, h); }
  MatrixXd yy() const { return block(x, x, y, y); }
  MatrixXd hh() const { return block(x + y, x + y, h, h); }
  MatrixXd hy() const { return block(x + y, x, h, y); }
  MatrixXd hx() const { return block(x + y, 0, h, x); }

  Eigen::Index x, y, h;
  VectorXd mean;

 private:
  MatrixXd block(Eigen::Index row, Eigen::Index column, Eigen::Index rows, Eigen::Index columns) const {
    MatrixXd covariance(rows, columns);
    for_columns(covariance, [&](Eigen::Index i) {
      covariance.col(i) = sum_.col(column + i).segment(row, rows) / count_ - mean[column + i] * mean.segment(row, rows);
    });
    if (!all_finite(covariance)) throw Error(ErrorCode::kInternal, "calibration: a statistic is not finite");
    return covariance;
  }

  const MatrixXd& sum_;
  double count_ = 0;
};

// The last `count` eigenvectors, falling; the largest entry of each is positive.
MatrixXd falling_directions(const MatrixXd& rising, Eigen::Index count) {
  MatrixXd directions(rising.rows(), count);
  for_columns(directions, [&](Eigen::Index column) {
    directions.col(column) = rising.col(rising.cols() - 1 - column);
    Eigen::Index largest = 0;
    directions.col(column).cwiseAbs().maxCoeff(&largest);
    if (directions(largest, column) < 0) directions.col(column) *= -1.0;
  });
  return directions;
}

// What a consumer adds to a fit.
struct Target {
  MatrixXd s_xe;
  MatrixXd s_ee;
  double energy = 0;
};

Target unpredicted(const Covariances& of, const MatrixXd& metric, double ridge, const Algebra& algebra) {
  SCD_CHECK(metric.rows() == of.y && metric.cols() == of.y, "a metric of the consumer's state");
  if (!all_finite(metric)) throw Error(ErrorCode::kInternal, "calibration: a metric is not finite");
  MatrixXd s_yy = of.yy();
  const double energy = inner_product(metric, s_yy);
  if (of.h == 0) return {of.xy(), std::move(s_yy), energy};
  const MatrixXd prediction = algebra.cholesky(of.hh(), ridge).solve(of.hy());
  return {difference(of.xy(), algebra.product(of.xh(), prediction)),
          difference(s_yy, algebra.transposed_product(of.hy(), prediction)), energy};
}

// M = U diag(s) V^T of the columns of all consumers, by way of the smaller of M^T M and M M^T.
struct Components {
  VectorXd variances;  // s^2, falling, all of them
  MatrixXd scaled;     // U diag(s), of those that are kept
};

Components components_of(const MatrixXd& weighted, const Algebra& algebra) {
  const bool tall = weighted.cols() <= weighted.rows();
  const SymmetricEigen eigen = algebra.symmetric_eigen(tall ? algebra.transposed_product(weighted, weighted)
                                                            : algebra.product_with_transposed(weighted, weighted));
  Components components{eigen.values.reverse(), {}};
  const VectorXd& variances = components.variances;
  const double smallest = kSmallestComponent * kSmallestComponent * std::max(variances[0], 0.0);
  const int64_t kept =
      std::max<int64_t>(1, std::count_if(variances.begin(), variances.end(), [&](double v) { return v > smallest; }));
  const MatrixXd directions = falling_directions(eigen.vectors, kept);
  if (tall) {
    components.scaled = algebra.product(weighted, directions);
  } else {
    components.scaled = directions * variances.head(kept).cwiseMax(0.0).cwiseSqrt().asDiagonal();
  }
  return components;
}

}  // namespace

RateFit fit_rate(const RegressionMoment& moment, const MatrixXd& metric, double ridge, const Algebra& algebra) {
  const RegressionTarget consumer{moment, metric};
  return fit_rate(std::span(&consumer, 1), ridge, algebra);
}

RateFit fit_rate(std::span<const RegressionTarget> consumers, double ridge, const Algebra& algebra) {
  SCD_CHECK(!consumers.empty(), "a consumer");
  const Covariances first(consumers.front().moment);
  const Cholesky whitening = algebra.cholesky(first.xx(), ridge);
  RateFit fit;
  double lost = 0;
  MatrixXd weighted(first.x, 0);
  for (const RegressionTarget& consumer : consumers) {
    const Covariances of(consumer.moment);
    SCD_CHECK(of.x == first.x && consumer.weight > 0, "consumers of one producer");
    Target target = unpredicted(of, consumer.metric, ridge, algebra);
    fit.energy += consumer.weight * target.energy;
    lost += consumer.weight * inner_product(consumer.metric, target.s_ee);
    const MatrixXd more =
        algebra.product(whitening.solve_lower(std::move(target.s_xe)), square_root(consumer.metric, algebra));
    const Eigen::Index before = weighted.cols();
    weighted.conservativeResize(Eigen::NoChange, before + of.y);
    for_columns(more, [&](Eigen::Index column) {
      weighted.col(before + column) = std::sqrt(consumer.weight) * more.col(column);
    });
  }
  Components components = components_of(weighted, algebra);
  const VectorXd deviations = components.variances.head(components.scaled.cols()).cwiseMax(1e-30).cwiseSqrt();
  // diag(s) U^T L^-1
  const MatrixXd encoder = whitening.solve_upper(std::move(components.scaled));  // transposed
  fit.encoder = {transposed_to_dense(encoder), to_floats(-(encoder.transpose() * first.mean.head(first.x)))};
  fit.deviations = to_floats(deviations);
  fit.unpredictable = std::max(lost - components.variances.cwiseMax(0).sum(), 0.0);
  return fit;
}

RdUnitDecoder fit_decoder(const RegressionMoment& moment, const RdUnitEncoder& encoder, double ridge,
                          const Algebra& algebra) {
  const Covariances of(moment);
  const MatrixXd map = transposed_to_doubles(encoder.map);
  const Eigen::Index codes = map.cols();
  const Eigen::Index known = codes + of.h;
  const MatrixXd s_cc = algebra.product(algebra.transposed_product(map, of.xx()), map);
  const MatrixXd s_cy = algebra.transposed_product(map, of.xy());
  const MatrixXd s_hh = of.hh(), s_hy = of.hy();
  const MatrixXd s_hc = of.h > 0 ? algebra.product(of.hx(), map) : MatrixXd(0, codes);
  // Codes and anchor differ by orders of magnitude: the ridge is one of correlations.
  VectorXd scale(known);
  scale << s_cc.diagonal(), s_hh.diagonal();
  scale = scale.cwiseMax(1e-30).cwiseSqrt().cwiseInverse().eval();
  const auto of_codes = scale.head(codes), of_anchor = scale.tail(of.h);
  MatrixXd s_kk(known, known), s_ky(known, of.y);
  for_columns(s_kk, [&](Eigen::Index column) {  // of the codes' correlation with the anchor only what lies below
    const bool is_code = column < codes;
    auto codes_part = s_kk.col(column).head(codes), anchor_part = s_kk.col(column).tail(of.h);
    if (is_code) {
      codes_part = scale[column] * of_codes.cwiseProduct(s_cc.col(column));
      anchor_part = scale[column] * of_anchor.cwiseProduct(s_hc.col(column));
    } else {
      codes_part.setZero();
      anchor_part = scale[column] * of_anchor.cwiseProduct(s_hh.col(column - codes));
    }
  });
  for_columns(s_ky, [&](Eigen::Index column) {
    s_ky.col(column).head(codes) = of_codes.cwiseProduct(s_cy.col(column));
    s_ky.col(column).tail(of.h) = of_anchor.cwiseProduct(s_hy.col(column));
  });
  MatrixXd solution = algebra.cholesky(std::move(s_kk), ridge).solve(std::move(s_ky));
  for_columns(solution, [&](Eigen::Index column) { solution.col(column).array() *= scale.array(); });
  const VectorXd mean_codes = map.transpose() * of.mean.head(of.x) +
                              Eigen::Map<const Eigen::VectorXf>(encoder.offset.data(), codes).cast<double>();
  VectorXd mean = of.mean.segment(of.x, of.y) - solution.topRows(codes).transpose() * mean_codes;
  if (of.h > 0) mean -= solution.bottomRows(of.h).transpose() * of.mean.tail(of.h);
  return {to_dense(solution.topRows(codes)), of.h > 0 ? to_dense(solution.bottomRows(of.h)) : DenseMatrix{},
          to_floats(mean)};
}

AnchorDirections anchor_directions(const RegressionMoment& moment, const MatrixXd& metric, double ridge,
                                   const Algebra& algebra) {
  const Covariances of(moment);
  SCD_CHECK(of.h > 0, "an anchor");
  const Cholesky whitening = algebra.cholesky(of.hh(), ridge);
  const MatrixXd weighted = algebra.product(whitening.solve_lower(of.hy()), square_root(metric, algebra));
  const SymmetricEigen eigen = algebra.symmetric_eigen(algebra.product_with_transposed(weighted, weighted));
  return {whitening.solve_upper(falling_directions(eigen.vectors, of.h)), eigen.values.reverse().cwiseMax(0.0)};
}

MatrixXd moment_of_directions(const RegressionMoment& moment, const MatrixXd& basis, const Algebra& algebra) {
  const Eigen::Index states = moment.source_dims + moment.target_dims, h = moment.anchor_dims();
  SCD_CHECK(basis.rows() == h, "directions of the anchor");
  const Eigen::Index directions = basis.cols(), dims = states + directions + 1;
  MatrixXd columns(moment.sum.rows(), dims);  // of [x y g 1], rows still of [x y h 1]
  columns.leftCols(states) = moment.sum.leftCols(states);
  columns.middleCols(states, directions) = algebra.product(moment.sum.middleCols(states, h), basis);
  columns.rightCols(1) = moment.sum.rightCols(1);
  MatrixXd both(dims, dims);
  both.topRows(states) = columns.topRows(states);
  both.middleRows(states, directions) = algebra.transposed_product(basis, columns.middleRows(states, h));
  both.bottomRows(1) = columns.bottomRows(1);
  return both;
}

void train_tables(std::span<const ComponentSample> components, RdQuantiserSettings& settings) {
  settings.frequencies = DenseMatrix(kRdTables, kRansSymbols);
  settings.shifts.assign(kRdTables, 0.0f);
#pragma omp parallel for schedule(dynamic)
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
