// The closed-form fits of `rd`: reduced-rank regression in the metric of the consumer's attention, and the tables that
// code its components. Everything but the tables follows from second moments.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "common/codec/calibration/algebra.h"
#include "common/codec/rd/rd_maps.h"

namespace scd {

// Of rows [x y h 1], as in rd_maps.h: x what the encoder reads, y and h the consumer's state and anchor; the last
// column counts and gives the means.
struct RegressionMoment {
  const Eigen::MatrixXd& sum;
  int64_t source_dims = 0;  // of x
  int64_t target_dims = 0;  // of y
  int64_t anchor_dims() const { return sum.rows() - source_dims - target_dims - 1; }
};

struct RateFit {
  RdUnitEncoder encoder;
  std::vector<float> deviations;
  double energy = 0;         // E (y - mean)^T G (y - mean)
  double unpredictable = 0;  // of it, what no rate buys: neither x nor h tells it
};

// With e = y - (regression of y on h) and S = covariances, S_xx = L L^T, M = L^-1 S_xe G^1/2 = U diag(s) V^T: component
// i is s_i times the i-th white direction U_i^T L^-1 x, so an error of d in it costs d^2 in the metric, and its
// deviation is s_i. metric: G, [target_dims, target_dims], positive semidefinite. ridge: of S_xx and S_hh, relative to
// their mean variance. Components below 1e-4 of the largest are left out. Signs are fixed, so equal moments give equal
// maps.
RateFit fit_rate(const RegressionMoment& moment, const Eigen::MatrixXd& metric, double ridge,
                 const Algebra& algebra = {});

// A consumer among several that are to read the same codes.
struct RegressionTarget {
  RegressionMoment moment;        // x is the same in all
  const Eigen::MatrixXd& metric;  // of this consumer's state
  double weight = 1;              // of its errors
};

// The encoder that serves them all best, by stacked regression: with M_k as above, of each its own anchor and metric,
// U and s^2 are eigenvectors and eigenvalues of sum_k w_k M_k M_k^T. An error of d in a component costs d^2 in the sum
// of w_k times the consumers' metrics. Energies are such sums.
RateFit fit_rate(std::span<const RegressionTarget> consumers, double ridge, const Algebra& algebra = {});

// The consumer's side: regression of y on [c h], c the codes of `encoder`. All that a further consumer needs.
RdUnitDecoder fit_decoder(const RegressionMoment& moment, const RdUnitEncoder& encoder, double ridge,
                          const Algebra& algebra = {});

// What a decoder may look at of its anchor: directions of h, uncorrelated and of variance 1, those first that tell most
// of y in the metric (reduced-rank regression of y on h).
struct AnchorDirections {
  Eigen::MatrixXd basis;  // [anchor_dims, anchor_dims]
  Eigen::VectorXd told;   // by each: of the energy of y
};
AnchorDirections anchor_directions(const RegressionMoment& moment, const Eigen::MatrixXd& metric, double ridge,
                                   const Algebra& algebra = {});
// The moment of rows [x y g 1], g = basis^T h.
Eigen::MatrixXd moment_of_directions(const RegressionMoment& moment, const Eigen::MatrixXd& basis,
                                     const Algebra& algebra = {});

// Values of one component over calibration tokens, with its deviation.
struct ComponentSample {
  std::span<const float> values;
  float deviation = 0;
};

// Trains one table for each range of deviation / step on all components as if quantised at the range's middle.
void train_tables(std::span<const ComponentSample> components, RdQuantiserSettings& settings);

}  // namespace scd
