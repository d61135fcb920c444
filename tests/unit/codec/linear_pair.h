// Rows that a linear map relates, and the fit of an `rd` codec to them.
#pragma once

#include <Eigen/Core>
#include <cmath>

#include "common/codec/calibration/rate_fit.h"
#include "common/codec/calibration/second_moment.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd::testing {

// x of falling variances, y a noisy linear image of it.
struct LinearPair {
  DenseMatrix x;
  DenseMatrix y;
};

inline LinearPair linear_pair(int64_t tokens, int64_t dims, float noise, uint32_t seed) {
  LinearPair pair{random_matrix(tokens, dims, seed), random_matrix(tokens, dims, seed + 1)};
  const DenseMatrix map = random_matrix(dims, dims, 99);
  for (int64_t row = 0; row < tokens; ++row) {
    for (int64_t i = 0; i < dims; ++i)
      pair.x.at(row, i) = 0.5f + pair.x.at(row, i) * std::pow(0.8f, static_cast<float>(i));
    for (int64_t i = 0; i < dims; ++i) {
      float sum = 1.0f + noise * pair.y.at(row, i);
      for (int64_t k = 0; k < dims; ++k) sum += 0.3f * pair.x.at(row, k) * map.at(k, i);
      pair.y.at(row, i) = sum;
    }
  }
  return pair;
}

inline Eigen::MatrixXd moment_of(const LinearPair& pair) {
  DenseMatrix ones(pair.x.rows, pair.y.columns + 1);
  for (int64_t row = 0; row < pair.x.rows; ++row) {
    for (int64_t i = 0; i < pair.y.columns; ++i) ones.at(row, i) = pair.y.at(row, i);
    ones.at(row, pair.y.columns) = 1.0f;
  }
  SecondMoment moment(pair.x.columns + pair.y.columns + 1);
  moment.add_joined(pair.x.view(), std::as_const(ones).view());
  return moment.sum();
}

// Both sides' maps.
struct Fitted : RateFit {
  RdUnitDecoder decoder;
};

inline Fitted fit_in(const LinearPair& pair, const Eigen::MatrixXd& metric) {
  const Eigen::MatrixXd sum = moment_of(pair);
  const RegressionMoment moment{sum, pair.x.columns, pair.y.columns};
  Fitted fitted{fit_rate(moment, metric, 1e-9), {}};
  fitted.decoder = fit_decoder(moment, fitted.encoder, 1e-9);
  return fitted;
}

inline Fitted fit(const LinearPair& pair) {
  return fit_in(pair, Eigen::MatrixXd::Identity(pair.y.columns, pair.y.columns));
}

// Loss when components are quantised with this step: the high-rate formula, at most the component's own variance.
inline double expected_loss(const RateFit& fit, double step) {
  double loss = fit.unpredictable;
  for (const float deviation : fit.deviations) loss += std::min(double{deviation} * deviation, step * step / 12);
  return loss;
}

// [components, tokens]
inline DenseMatrix codes_of(const RdUnitEncoder& encoder, const DenseMatrix& x) {
  DenseMatrix codes(encoder.map.rows, x.rows);
  for (int64_t c = 0; c < codes.rows; ++c) {
    for (int64_t row = 0; row < x.rows; ++row) {
      float sum = encoder.offset[static_cast<size_t>(c)];
      for (int64_t i = 0; i < x.columns; ++i) sum += encoder.map.at(c, i) * x.at(row, i);
      codes.at(c, row) = sum;
    }
  }
  return codes;
}

}  // namespace scd::testing
