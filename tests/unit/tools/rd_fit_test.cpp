// What a fit of `rd` is compared with: the bound of its components, and fits without one of its parts.
#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "common/base/error.h"
#include "common/codec/rd/rd_quantiser.h"
#include "tools/scd/rd_rate.h"
#include "tools/scd/rd_variants.h"

namespace scd {
namespace {

using ::testing::HasSubstr;

// Independent Gaussian components of falling deviations, one unit, tables trained on them.
struct GaussianCodes {
  RdQuantiserSettings settings;
  std::vector<DenseMatrix> codes;

  explicit GaussianCodes(std::vector<float> steps) {
    std::mt19937 random(7);
    constexpr int64_t kComponents = 24, kTokens = 4000;
    DenseMatrix values(kComponents, kTokens);
    std::vector<float> deviations;
    std::vector<ComponentSample> samples;
    for (int64_t row = 0; row < kComponents; ++row) {
      deviations.push_back(std::exp2(-0.25f * static_cast<float>(row)));
      std::normal_distribution<float> normal(0, deviations.back());
      for (int64_t i = 0; i < kTokens; ++i) values.at(row, i) = normal(random);
    }
    codes.push_back(std::move(values));
    for (int64_t row = 0; row < kComponents; ++row) {
      samples.push_back({{codes[0].view().row<float>(row), kTokens}, deviations[static_cast<size_t>(row)]});
    }
    settings.steps = std::move(steps);
    settings.deviations.push_back(std::move(deviations));
    train_tables(samples, settings);
  }
};

TEST(RdRate, GaussianComponentsCostAQuarterOfABitMoreThanTheBoundAndNeverLess) {
  const GaussianCodes gaussian({0.05f, 0.2f, 0.8f});
  const std::vector<RateBound> bounds = rate_bounds(gaussian.settings, gaussian.codes);
  ASSERT_EQ(bounds.size(), 3U);
  for (size_t level = 0; level < bounds.size(); ++level) {
    EXPECT_GT(bounds[level].bits, bounds[level].bound_bits);
    // A uniform quantiser with an entropy coder loses 0.255 bits a component at high rate (Gish, Pierce 1968), and
    // tables for half octaves a little more; at low rate both go to zero.
    EXPECT_LT(bounds[level].bits, bounds[level].bound_bits + 24 * 0.30);
    if (level == 0) continue;
    EXPECT_LT(bounds[level].bits, bounds[level - 1].bits);
    EXPECT_GT(bounds[level].distortion, bounds[level - 1].distortion);
  }
  // Of a fine step every component loses step^2 / 12.
  EXPECT_NEAR(bounds[0].distortion / (24 * 0.05 * 0.05 / 12), 1.0, 0.1);
}

TEST(RdRate, TheStepMeetsTheRateByTheTables) {
  const GaussianCodes gaussian({1e-3f});
  RdQuantiserSettings settings = gaussian.settings;
  for (const double wanted : {20.0, 50.0, 90.0}) {
    settings.steps = {step_for(gaussian.settings, wanted)};
    EXPECT_NEAR(rate_bounds(settings, gaussian.codes)[0].bits / wanted, 1.0, 0.06) << wanted;
  }
}

// Of random rows [x y 1].
Eigen::MatrixXd random_moment(Eigen::Index dims) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  Eigen::MatrixXd rows(200, dims);
  for (double& value : rows.reshaped()) value = normal(random) + 0.5;
  const Eigen::MatrixXd mixing = Eigen::MatrixXd::NullaryExpr(dims, dims, [&] { return normal(random); });
  rows = rows * mixing;
  rows.col(dims - 1).setOnes();
  return rows.transpose() * rows;
}

TEST(RdVariants, SharedHeadsKeepOnlyWhatAHeadTellsOfItselfAndAllMeans) {
  const CodecModel model{.layers = 2, .kv_heads = 2, .head_dim = 4, .hidden = 3, .rope = {}};
  const CodedUnit unit{0, 2};
  const Eigen::Index state = 32, x = state, last = 2 * state;
  const Eigen::MatrixXd sum = random_moment(last + 1);
  const Eigen::MatrixXd shared = with_shared_heads({sum, x, state}, unit, model);
  EXPECT_THROW(with_shared_heads({sum, x, state - 1}, unit, model), Error) << "an anchor, or another shape";
  const auto covariance = [&](const Eigen::MatrixXd& of) -> Eigen::MatrixXd {
    const Eigen::VectorXd mean = of.col(last) / of(last, last);
    return of / of(last, last) - mean * mean.transpose();
  };
  const Eigen::MatrixXd before = covariance(sum), after = covariance(shared);
  EXPECT_TRUE(shared.col(last).isApprox(sum.col(last)));
  for (Eigen::Index row = 0; row < state; row += 4) {
    for (Eigen::Index column = 0; column < state; column += 4) {
      const Eigen::MatrixXd of_x = after.block(row, column, 4, 4), of_y = after.block(row, x + column, 4, 4);
      const Eigen::Index layer = row / 8 * 8;  // of its two heads the mean
      const bool same_head = row == column;
      EXPECT_EQ(of_x.norm() > 1e-9, same_head) << row << " " << column;
      EXPECT_EQ(of_y.norm() > 1e-9, same_head) << row << " " << column;
      if (!same_head) continue;
      EXPECT_TRUE(of_x.isApprox((before.block(layer, layer, 4, 4) + before.block(layer + 4, layer + 4, 4, 4)) / 2));
    }
  }
}

TEST(RdVariants, MetricsLoseTheirDirectionsOrTheirWeights) {
  LayerMetric layer{Eigen::Vector4d(1, 2, 3, 6).asDiagonal(), Eigen::Vector4d(2, 2, 2, 2).asDiagonal()};
  const LayerMetric isotropic = metrics_of(RdVariant::kNoMetric, std::span(&layer, 1)).front();
  EXPECT_TRUE(isotropic.keys.isApprox(3 * Eigen::MatrixXd::Identity(4, 4)));
  const LayerMetric unweighted = metrics_of(RdVariant::kNoWeights, std::span(&layer, 1)).front();
  EXPECT_TRUE(unweighted.keys.isApprox(layer.keys / 12));
  EXPECT_TRUE(metrics_of(RdVariant::kFull, std::span(&layer, 1)).front().keys.isApprox(layer.keys));
}

TEST(RdVariants, AFixedRankCutsAndMakesDeviationsOne) {
  RateFit fit;
  fit.encoder.map = DenseMatrix(3, 2);
  fit.encoder.map.values = {4, 8, 1, 2, 5, 5};
  fit.encoder.offset = {2, 1, 1};
  fit.deviations = {4, 0.5, 0.1};
  fix_rank(fit, 2);
  EXPECT_EQ(fit.encoder.map.values, (std::vector<float>{1, 2, 2, 4}));
  EXPECT_EQ(fit.encoder.offset, (std::vector<float>{0.5, 2}));
  EXPECT_EQ(fit.deviations, (std::vector<float>{1, 1}));
}

TEST(RdVariants, AnUnknownNameIsRefusedWithThoseThereAre) {
  EXPECT_EQ(parse_rd_variant("head-shared"), RdVariant::kHeadShared);
  try {
    (void)parse_rd_variant("best");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--variants best: expected of full, no-metric"));
  }
}

}  // namespace
}  // namespace scd
