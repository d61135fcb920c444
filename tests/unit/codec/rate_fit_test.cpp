#include "common/codec/calibration/rate_fit.h"

#include <gmock/gmock.h>

#include <Eigen/Core>
#include <cmath>

#include "common/codec/calibration/second_moment.h"
#include "tests/unit/codec/linear_pair.h"

namespace scd {
namespace {

using testing::codes_of;
using testing::fit;
using testing::fit_in;
using testing::Fitted;
using testing::linear_pair;
using testing::LinearPair;
using testing::moment_of;
using testing::random_matrix;

TEST(RateFit, CodesAreUncorrelatedWithTheDeviationsItSays) {
  const LinearPair pair = linear_pair(5000, 12, 0.3f, 1);
  const Fitted fitted = fit(pair);
  const DenseMatrix codes = codes_of(fitted.encoder, pair.x);
  for (int64_t i = 0; i < codes.rows; ++i) {
    for (int64_t k = 0; k <= i; ++k) {
      double sum = 0;
      for (int64_t row = 0; row < codes.columns; ++row) sum += double{codes.at(i, row)} * codes.at(k, row);
      const double expected = i == k ? std::pow(fitted.deviations[static_cast<size_t>(i)], 2) : 0.0;
      EXPECT_NEAR(sum / static_cast<double>(codes.columns), expected, 2e-3 * std::pow(fitted.deviations[0], 2));
    }
  }
  EXPECT_TRUE(std::ranges::is_sorted(fitted.deviations, std::greater{}));
}

TEST(RateFit, AllComponentsLeaveWhatIsUnpredictableAndFewerTheirVariance) {
  const LinearPair pair = linear_pair(20'000, 12, 0.3f, 2);
  const Fitted fitted = fit(pair);
  EXPECT_NEAR(fitted.unpredictable, 12 * 0.09, 0.03);
  const DenseMatrix codes = codes_of(fitted.encoder, pair.x);
  for (const int64_t rank : {int64_t{12}, int64_t{4}}) {
    double loss = 0;
    for (int64_t row = 0; row < pair.y.rows; ++row) {
      for (int64_t i = 0; i < 12; ++i) {
        float y = fitted.decoder.mean[static_cast<size_t>(i)];
        for (int64_t c = 0; c < rank; ++c) y += fitted.decoder.map.at(c, i) * codes.at(c, row);
        loss += std::pow(double{y} - pair.y.at(row, i), 2);
      }
    }
    double expected = fitted.unpredictable;
    for (size_t c = static_cast<size_t>(rank); c < 12; ++c) expected += std::pow(double{fitted.deviations[c]}, 2);
    EXPECT_NEAR(loss / static_cast<double>(pair.y.rows), expected, 0.01 * expected) << rank;
  }
}

TEST(RateFit, TheMetricDecidesWhatComesFirst) {
  const LinearPair pair = linear_pair(5000, 6, 0.1f, 3);
  Eigen::MatrixXd metric = Eigen::MatrixXd::Zero(6, 6);
  metric(2, 2) = 1.0;  // nobody reads the other dimensions
  const Fitted fitted = fit_in(pair, metric);
  ASSERT_EQ(fitted.deviations.size(), 1U);
  const DenseMatrix codes = codes_of(fitted.encoder, pair.x);
  double loss = 0;
  for (int64_t row = 0; row < pair.y.rows; ++row) {
    const float y = fitted.decoder.mean[2] + fitted.decoder.map.at(0, 2) * codes.at(0, row);
    loss += std::pow(double{y} - pair.y.at(row, 2), 2);
  }
  EXPECT_NEAR(loss / static_cast<double>(pair.y.rows), 0.01, 0.001);
}

// y = x + 2 h + noise: an anchor that both sides have takes its part out of the codes.
TEST(RateFit, WhatTheAnchorTellsIsNotCoded) {
  constexpr int64_t kTokens = 20'000, kDims = 4;
  const DenseMatrix own = random_matrix(kTokens, kDims, 11), anchor = random_matrix(kTokens, kDims, 12);
  const DenseMatrix noise = random_matrix(kTokens, kDims, 13);
  DenseMatrix y(kTokens, kDims), x(kTokens, kDims), ones(kTokens, 1);
  for (int64_t row = 0; row < kTokens; ++row) {
    ones.at(row, 0) = 1.0f;
    for (int64_t i = 0; i < kDims; ++i) {
      x.at(row, i) = own.at(row, i) + 2 * anchor.at(row, i);  // the producer's state holds it too
      y.at(row, i) = x.at(row, i) + 0.1f * noise.at(row, i) + 3.0f;
    }
  }
  const auto moment_with = [&](const DenseMatrix& source, bool anchored) {
    DenseMatrix target = y;
    if (anchored) target = side_by_side(std::as_const(target).view(), anchor.view());
    target = side_by_side(std::as_const(target).view(), std::as_const(ones).view());
    SecondMoment moment(source.columns + target.columns);
    moment.add_joined(source.view(), std::as_const(target).view());
    return moment.sum();
  };
  const Eigen::MatrixXd plain = moment_with(x, false);
  const DenseMatrix both = side_by_side(std::as_const(x).view(), anchor.view());
  const Eigen::MatrixXd informed = moment_with(both, true);
  const Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(kDims, kDims);
  const RateFit without = fit_rate({plain, kDims, kDims}, metric, 1e-9);
  const RateFit with = fit_rate({informed, 2 * kDims, kDims}, metric, 1e-9);
  for (size_t i = 0; i < kDims; ++i) {
    EXPECT_NEAR(without.deviations[i], std::sqrt(5.0f), 0.1f);
    EXPECT_NEAR(with.deviations[i], 1.0f, 0.05f);  // only `own` is left
  }
  EXPECT_NEAR(with.unpredictable, kDims * 0.01, 0.002);
  const RdUnitDecoder decoder = fit_decoder({informed, 2 * kDims, kDims}, with.encoder, 1e-9);
  const DenseMatrix codes = codes_of(with.encoder, both);
  double loss = 0;
  for (int64_t row = 0; row < kTokens; ++row) {
    for (int64_t i = 0; i < kDims; ++i) {
      float back = decoder.mean[static_cast<size_t>(i)];
      for (int64_t c = 0; c < codes.rows; ++c) back += decoder.map.at(c, i) * codes.at(c, row);
      for (int64_t c = 0; c < kDims; ++c) back += decoder.anchor_map.at(c, i) * anchor.at(row, c);
      loss += std::pow(double{back} - y.at(row, i), 2);
    }
  }
  EXPECT_NEAR(loss / kTokens, with.unpredictable, 0.002);
}

// y depends on two directions of h, in one of which hardly anybody is interested.
TEST(RateFit, FewDirectionsOfTheAnchorAreThoseThatTellMost) {
  constexpr int64_t kTokens = 20'000, kDims = 4, kAnchor = 6;
  const DenseMatrix x = random_matrix(kTokens, kDims, 21);
  DenseMatrix anchor = random_matrix(kTokens, kAnchor, 22), y(kTokens, kDims + kAnchor + 1);  // [y h 1]
  for (int64_t row = 0; row < kTokens; ++row) {
    for (int64_t i = 0; i < kAnchor; ++i) y.at(row, kDims + i) = anchor.at(row, i) = 2.0f + 3.0f * anchor.at(row, i);
    const float much = anchor.at(row, 0) + anchor.at(row, 1), other = anchor.at(row, 2);
    for (int64_t i = 0; i < kDims; ++i) y.at(row, i) = x.at(row, i) + much + (i == 3 ? 5.0f * other : 0.0f);
    y.at(row, kDims + kAnchor) = 1.0f;
  }
  SecondMoment sums(kDims + y.columns);
  sums.add_joined(x.view(), std::as_const(y).view());
  const Eigen::MatrixXd sum = sums.sum();
  const RegressionMoment whole{sum, kDims, kDims};
  Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(kDims, kDims);
  metric(3, 3) = 0.01;
  const AnchorDirections directions = anchor_directions(whole, metric, 1e-9);
  ASSERT_EQ(directions.basis.rows(), kAnchor);
  ASSERT_EQ(directions.told.size(), kAnchor);
  EXPECT_NEAR(directions.told[0], 3.01 * 2 * 9, 1);
  EXPECT_NEAR(directions.told[1], 0.01 * 25 * 9, 0.05);
  EXPECT_NEAR(directions.told[2], 0, 1e-3);  // as samples happen to fall
  const Eigen::MatrixXd one = directions.basis.leftCols(1), two = directions.basis.leftCols(2);
  EXPECT_NEAR(std::abs(one(0, 0)), 1 / (3 * std::sqrt(2.0)), 5e-3);  // of variance 1
  EXPECT_NEAR(one(0, 0), one(1, 0), 5e-3);
  EXPECT_NEAR(one.bottomRows(4).norm(), 0, 5e-3);

  // Nothing but x is left to the codes; what one direction does not tell is in no code, either.
  const auto unpredictable = [&](const Eigen::MatrixXd& basis) {
    const Eigen::MatrixXd seen = moment_of_directions(whole, basis);
    EXPECT_TRUE(seen.isApprox(seen.transpose(), 1e-9));
    return fit_rate({seen, kDims, kDims}, metric, 1e-9).unpredictable;
  };
  const double all = fit_rate(whole, metric, 1e-9).unpredictable;
  EXPECT_NEAR(unpredictable(two), all, 2e-3);
  EXPECT_NEAR(unpredictable(one), all + 0.01 * 25 * 9, 0.05);
  const Eigen::MatrixXd wrong = Eigen::MatrixXd::Identity(kAnchor, kAnchor).rightCols(2);
  EXPECT_GT(unpredictable(wrong), all + 1);
}

// Consumers are columns of one regression: those that each hold a part of y are served as one that holds all of it.
TEST(RateFit, AnEncoderForSeveralConsumersIsThatOfTheirStatesSideBySide) {
  constexpr int64_t kHalf = 6;
  const LinearPair both = linear_pair(3000, 2 * kHalf, 0.1f, 61);
  const auto part = [&](int64_t first) {
    LinearPair one{both.x, DenseMatrix(both.y.rows, kHalf)};
    for (int64_t row = 0; row < both.y.rows; ++row) {
      for (int64_t i = 0; i < kHalf; ++i) one.y.at(row, i) = both.y.at(row, first + i);
    }
    return moment_of(one);
  };
  const Eigen::MatrixXd all = moment_of(both), left = part(0), right = part(kHalf);
  const Eigen::MatrixXd one = Eigen::MatrixXd::Identity(kHalf, kHalf), two = 2 * one;
  Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(2 * kHalf, 2 * kHalf);
  metric.bottomRightCorner(kHalf, kHalf) *= 3 * 2;
  const RateFit joined = fit_rate({all, 2 * kHalf, 2 * kHalf}, metric, 1e-9);
  const RegressionTarget consumers[] = {{{left, 2 * kHalf, kHalf}, one}, {{right, 2 * kHalf, kHalf}, two, 3}};
  const RateFit stacked = fit_rate(consumers, 1e-9);
  ASSERT_EQ(stacked.deviations.size(), joined.deviations.size());
  EXPECT_NEAR(stacked.energy, joined.energy, 1e-6 * joined.energy);
  EXPECT_NEAR(stacked.unpredictable, joined.unpredictable, 1e-4 * joined.unpredictable);
  for (size_t i = 0; i < joined.deviations.size(); ++i) {
    EXPECT_NEAR(stacked.deviations[i], joined.deviations[i], 1e-3f * joined.deviations[i]);
    for (int64_t c = 0; c < 2 * kHalf; ++c) {
      const auto row = static_cast<int64_t>(i);
      EXPECT_NEAR(stacked.encoder.map.at(row, c), joined.encoder.map.at(row, c),
                  1e-2f * (0.1f + std::abs(joined.encoder.map.at(row, c))));
    }
  }
}

// More columns than x has: the same directions are found from the other side.
TEST(RateFit, TheSameConsumerTwiceChangesNothing) {
  constexpr int64_t kDims = 8;
  const Eigen::MatrixXd moment = moment_of(linear_pair(3000, kDims, 0.1f, 71));
  const Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(kDims, kDims);
  const RateFit once = fit_rate({moment, kDims, kDims}, metric, 1e-9);
  const RegressionTarget half{{moment, kDims, kDims}, metric, 0.5};
  const RegressionTarget consumers[] = {half, half};
  const RateFit twice = fit_rate(consumers, 1e-9);
  ASSERT_EQ(twice.deviations.size(), once.deviations.size());
  for (size_t i = 0; i < once.deviations.size(); ++i) {
    EXPECT_NEAR(twice.deviations[i], once.deviations[i], 1e-3f * once.deviations[i]);
    const auto row = static_cast<int64_t>(i);
    for (int64_t c = 0; c < kDims; ++c) {  // up to the sign of each component
      EXPECT_NEAR(std::abs(twice.encoder.map.at(row, c)), std::abs(once.encoder.map.at(row, c)),
                  1e-2f * (0.1f + std::abs(once.encoder.map.at(row, c))));
    }
  }
}

}  // namespace
}  // namespace scd
