// The closed-form fits of `rd`: reduced-rank regression in the metric of the consumer's attention, and the tables that
// code its components. Everything but the tables follows from second moments.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "common/codec/rd/rd_maps.h"

namespace scd {

// Of rows [x y 1]: x the producer's, y the consumer's; the last column counts and gives the means.
struct RegressionMoment {
  const Eigen::MatrixXd& sum;  // [a + b + 1, a + b + 1]
  int64_t producer_dims = 0;   // a
};

struct RateFit {
  RdLayerEncoder encoder;
  RdLayerDecoder decoder;
  std::vector<float> deviations;
  double energy = 0;         // E (y - mean)^T G (y - mean)
  double unpredictable = 0;  // of it, what no rate buys
};

// With S = covariances, M = S_xx^-1/2 S_xy G^1/2 = U diag(s) V^T: component i is s_i times the i-th white direction
// x^T S_xx^-1/2 U_i, so an error of e in it costs e^2 in the metric, and its deviation is s_i. metric: G, [b, b],
// positive semidefinite. ridge: of S_xx, relative to its mean variance. Components below 1e-4 of the largest are left
// out. Signs are fixed, so equal moments give equal maps.
RateFit fit_rate(const RegressionMoment& moment, const Eigen::MatrixXd& metric, double ridge);

// Values of one component over calibration tokens, with its deviation.
struct ComponentSample {
  std::span<const float> values;
  float deviation = 0;
};

// Trains one table for each range of deviation / step on all components as if quantised at the range's middle.
void train_tables(std::span<const ComponentSample> components, RdQuantiserSettings& settings);

}  // namespace scd
