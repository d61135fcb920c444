// What a token's own codes tell of the weight that later queries will give it: a regression, so that a producer can
// know a rate before any later text exists.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <vector>

#include "common/codec/calibration/second_moment.h"
#include "common/codec/dense_matrix.h"

namespace scd {

class TokenWeightFit {
 public:
  // deviations: of each component, all above 0.
  explicit TokenWeightFit(std::vector<float> deviations);

  // codes [components, tokens]; octaves: log2 of each token's weight, relative to its text's.
  void add(const DenseMatrix& codes, std::span<const double> octaves);
  // ridge: relative to the variance of a component over its deviation, which is 1.
  void fit(double ridge);
  // Octaves of each token.
  std::vector<double> predict(const DenseMatrix& codes) const;

 private:
  std::vector<float> deviations_;
  SecondMoment joined_;  // of rows [codes / deviations, octaves, 1]
  Eigen::VectorXd map_;  // of codes
  double offset_ = 0;
};

}  // namespace scd
