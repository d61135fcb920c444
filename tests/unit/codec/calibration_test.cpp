#include <gtest/gtest.h>

#include <Eigen/LU>
#include <Eigen/SVD>
#include <cmath>

#include "common/codec/calibration/latent_fit.h"
#include "common/codec/calibration/predictor_fit.h"
#include "common/codec/calibration/reservoir.h"
#include "common/codec/calibration/second_moment.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

MatrixXd to_eigen(const DenseMatrix& dense) {
  return Eigen::Map<const RowMajorF>(dense.values.data(), dense.rows, dense.columns).cast<double>();
}

DenseMatrix to_dense(const MatrixXd& matrix) {
  DenseMatrix dense(matrix.rows(), matrix.cols());
  Eigen::Map<RowMajorF>(dense.values.data(), matrix.rows(), matrix.cols()) = matrix.cast<float>();
  return dense;
}

SecondMoment moment_of(const DenseMatrix& a, const DenseMatrix& b) {
  SecondMoment moment(a.columns + b.columns);
  moment.add_joined(a.view(), b.view());
  return moment;
}

TEST(SecondMoment, EqualsTheProductInDoubleWhateverTheBlocks) {
  for (const int64_t dims : {9, 64, 150}) {
    const DenseMatrix rows = testing::random_matrix(2500, dims, 1);
    SecondMoment whole(dims);
    whole.add(rows.view());
    SecondMoment parts(dims);
    for (int64_t begin = 0; begin < 2500; begin += 333) {
      parts.add(kernels::matrix(rows.values.data() + begin * dims, std::min<int64_t>(333, 2500 - begin), dims));
    }
    const MatrixXd x = to_eigen(rows);
    const MatrixXd expected = x.transpose() * x;
    EXPECT_EQ(whole.samples(), 2500);
    EXPECT_LT((whole.sum() - expected).cwiseAbs().maxCoeff(), 1e-2);
    EXPECT_LT((parts.sum() - expected).cwiseAbs().maxCoeff(), 1e-2);
    EXPECT_EQ((whole.sum() - whole.sum().transpose()).cwiseAbs().maxCoeff(), 0.0);
  }
}

TEST(LatentFit, SameModelAtFullRankIsReconstructed) {
  const DenseMatrix x = testing::random_matrix(400, 8, 2);
  const SecondMoment moment = moment_of(x, x);
  const JoinedMoment joined{moment.sum(), 8};
  const LatentFit fit = fit_shared_latent(joined, 8, 1e-9);
  EXPECT_LT(relative_loss(joined, fit.encoder, fit.decoder), 1e-6);
  const MatrixXd identity = to_eigen(fit.encoder).transpose() * to_eigen(fit.decoder);
  EXPECT_LT((identity - MatrixXd::Identity(8, 8)).cwiseAbs().maxCoeff(), 1e-4);
}

TEST(LatentFit, AKnownLinearMapIsRecovered) {
  const DenseMatrix x = testing::random_matrix(600, 8, 3);
  const MatrixXd map = to_eigen(testing::random_matrix(8, 8, 4));
  const DenseMatrix y = to_dense(to_eigen(x) * map);
  const SecondMoment moment = moment_of(x, y);
  const JoinedMoment joined{moment.sum(), 8};
  const LatentFit fit = fit_shared_latent(joined, 8, 1e-9);
  EXPECT_LT((to_eigen(fit.encoder).transpose() * to_eigen(fit.decoder) - map).cwiseAbs().maxCoeff(), 1e-3);
}

TEST(LatentFit, EqualsTheSingularValueDecompositionAndRidgeOfTheSamples) {
  // Columns of falling size make the singular values distinct.
  DenseMatrix a = testing::random_matrix(300, 6, 5);
  DenseMatrix b = testing::random_matrix(300, 5, 6);
  for (int64_t r = 0; r < 300; ++r) {
    for (int64_t c = 0; c < 6; ++c) a.at(r, c) *= static_cast<float>(std::pow(1.7, -c));
    for (int64_t c = 0; c < 5; ++c) b.at(r, c) = 0.6f * a.at(r, c) + 0.2f * b.at(r, c) * a.at(0, c);
  }
  const SecondMoment moment = moment_of(a, b);
  const double ridge = 1e-2;
  const LatentFit fit = fit_shared_latent({moment.sum(), 6}, 4, ridge);

  MatrixXd x(300, 11);
  x << to_eigen(a), to_eigen(b);
  const Eigen::JacobiSVD<MatrixXd> svd(x, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const MatrixXd v = svd.matrixV().leftCols(4);
  const MatrixXd xa = to_eigen(a);
  MatrixXd regularised = xa.transpose() * xa;
  regularised.diagonal().array() += ridge * regularised.trace() / 6;
  const MatrixXd encoder = regularised.inverse() * xa.transpose() * (x * v);
  // Up to the sign of each component.
  const MatrixXd expected = encoder * v.bottomRows(5).transpose();
  EXPECT_LT((to_eigen(fit.encoder).transpose() * to_eigen(fit.decoder) - expected).cwiseAbs().maxCoeff(), 1e-3);
  for (int64_t r = 0; r < 4; ++r) {
    const double direct = encoder.col(r).dot(to_eigen(fit.encoder).row(r).transpose());
    EXPECT_NEAR(std::abs(direct), encoder.col(r).squaredNorm(), 1e-3 * encoder.col(r).squaredNorm());
  }

  const MatrixXd error = to_eigen(b) - xa * to_eigen(fit.encoder).transpose() * to_eigen(fit.decoder);
  EXPECT_NEAR(relative_loss({moment.sum(), 6}, fit.encoder, fit.decoder),
              error.squaredNorm() / to_eigen(b).squaredNorm(), 1e-4);
}

TEST(LatentFit, LowerRanksAreNestedAndLoseMore) {
  const DenseMatrix a = testing::random_matrix(500, 8, 7);
  const DenseMatrix b = to_dense(to_eigen(a) * to_eigen(testing::random_matrix(8, 8, 8)));
  const SecondMoment moment = moment_of(a, b);
  const JoinedMoment joined{moment.sum(), 8};
  const LatentFit full = fit_shared_latent(joined, 8, 1e-6);
  const LatentFit low = fit_shared_latent(joined, 3, 1e-6);
  for (int64_t c = 0; c < 8; ++c) EXPECT_NEAR(full.encoder.at(2, c), low.encoder.at(2, c), 1e-5);
  double previous = 1.0;
  for (int64_t rank = 1; rank <= 8; ++rank) {
    const double loss = relative_loss(joined, full.encoder, full.decoder, rank);
    EXPECT_LT(loss, previous);
    previous = loss;
  }
}

TEST(LatentFit, ASecondConsumerDecodesTheSameCodes) {
  const DenseMatrix a = testing::random_matrix(500, 8, 9);
  const DenseMatrix b = to_dense(to_eigen(a) * to_eigen(testing::random_matrix(8, 8, 10)));
  const DenseMatrix other = to_dense(to_eigen(a) * to_eigen(testing::random_matrix(8, 8, 11)));
  const SecondMoment first = moment_of(a, b);
  const LatentFit fit = fit_shared_latent({first.sum(), 8}, 8, 1e-9);
  const SecondMoment second = moment_of(a, other);
  const JoinedMoment joined{second.sum(), 8};
  EXPECT_LT(relative_loss(joined, fit.encoder, fit_decoder(joined, fit.encoder, 1e-9)), 1e-5);
}

TEST(PairReservoir, KeepsAUniformSampleOfBoundedSizeAndItsPairs) {
  DenseMatrix first(1, 1), second(1, 1);
  std::vector<int> kept(400);
  for (uint64_t seed = 0; seed < 200; ++seed) {
    PairReservoir reservoir(20, 1, 1, seed);
    for (int i = 0; i < 400; ++i) {
      first.at(0, 0) = static_cast<float>(i % 200);
      second.at(0, 0) = static_cast<float>(i % 200 + 1);
      if (i >= 200) {
        first.at(0, 0) = -static_cast<float>(i - 200);
        second.at(0, 0) = 1.0f - static_cast<float>(i - 200);
      }
      reservoir.add(std::as_const(first).view(), std::as_const(second).view());
    }
    ASSERT_EQ(reservoir.size(), 20);
    const DenseMatrix a = reservoir.first();
    const DenseMatrix b = reservoir.second();
    for (int64_t r = 0; r < 20; ++r) {
      ASSERT_EQ(b.at(r, 0), a.at(r, 0) + 1.0f);
      ++kept[a.at(r, 0) < 0 ? size_t(200 - a.at(r, 0)) : size_t(a.at(r, 0))];
    }
  }
  // 4000 kept rows: half of them from each half of the stream, within five standard deviations.
  int early = 0;
  for (size_t i = 0; i < 200; ++i) early += kept[i];
  EXPECT_NEAR(early, 2000, 160);
}

struct PredictorCase {
  DenseMatrix codes, targets, held_out_codes, held_out_targets;
  PredictorSamples samples() const { return {codes, targets, held_out_codes, held_out_targets}; }
};

// targets = codes * map + 0.5, and a part no linear map can give.
PredictorCase make_case(double nonlinear) {
  const auto make = [&](int64_t count, uint32_t seed, DenseMatrix& codes, DenseMatrix& targets) {
    codes = testing::random_matrix(count, 6, seed);
    const DenseMatrix map = testing::random_matrix(6, 10, 77);
    targets = DenseMatrix(count, 10);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t c = 0; c < 10; ++c) {
        double sum = 0.5;
        for (int64_t i = 0; i < 6; ++i) sum += double{codes.at(r, i)} * map.at(i, c);
        targets.at(r, c) = static_cast<float>(sum + nonlinear * std::abs(codes.at(r, c % 6)));
      }
    }
  };
  PredictorCase result;
  make(1500, 21, result.codes, result.targets);
  make(200, 22, result.held_out_codes, result.held_out_targets);
  return result;
}

TEST(PredictorFit, ALinearRelationNeedsNoNetwork) {
  const PredictorCase samples = make_case(0.0);
  const PredictorFit fit = fit_predictor(samples.samples(), {.network = {.width = 0}, .ridge = 1e-9});
  EXPECT_LT(fit.loss, 1e-4);  // BF16 weights
  EXPECT_TRUE(fit.predictor.network.empty());
}

TEST(PredictorFit, TheNetworkLearnsWhatTheRegressionCannot) {
  const PredictorCase samples = make_case(2.0);
  const PredictorFit fit =
      fit_predictor(samples.samples(), {.network = {.width = 32, .max_epochs = 40, .learning_rate = 5e-3f}});
  EXPECT_GT(fit.regression_loss, 0.02);
  EXPECT_LT(fit.loss, 0.3 * fit.regression_loss);
  EXPECT_GT(fit.epochs, 0);
}

// What the linear map leaves of make_case(2.0), about |codes|.
PredictorCase make_residuals() {
  PredictorCase result = make_case(2.0);
  const PredictorFit linear = fit_predictor(result.samples(), {.network = {.width = 0}, .ridge = 1e-9});
  const auto take_out = [&](const DenseMatrix& codes, DenseMatrix& targets) {
    DenseMatrix predicted(targets.rows, targets.columns);
    const DenseMatrix by_component = transposed(codes);
    predict_attention_input(linear.predictor, by_component.view(), predicted.view());
    for (size_t i = 0; i < targets.values.size(); ++i) targets.values[i] -= predicted.values[i];
  };
  take_out(result.codes, result.targets);
  take_out(result.held_out_codes, result.held_out_targets);
  return result;
}

double error_of(const SmallNetwork& network, const PredictorCase& samples, int64_t column) {
  DenseMatrix out(samples.held_out_targets.rows, samples.held_out_targets.columns);
  add_network(network, {.codes = {}, .anchor = samples.held_out_codes.view()}, out.view());
  double sum = 0;
  for (int64_t row = 0; row < out.rows; ++row) {
    sum += std::pow(double{samples.held_out_targets.at(row, column)} - out.at(row, column), 2);
  }
  return sum / static_cast<double>(out.rows);
}

// Two hidden units cannot tell all ten outputs: they go to the one that costs.
TEST(NetworkFit, TheMetricDecidesWhatIsLearnt) {
  const PredictorCase samples = make_residuals();
  const NetworkOptions options{.width = 2, .max_epochs = 80, .patience = 80, .learning_rate = 1e-2f};
  const NetworkSamples of{samples.codes, samples.targets, samples.held_out_codes, samples.held_out_targets};
  for (const int64_t wanted : {int64_t{1}, int64_t{4}}) {
    Eigen::MatrixXd metric = Eigen::MatrixXd::Zero(10, 10);
    metric(wanted, wanted) = 3.0;
    const TrainedNetwork fit = fit_network(of, metric, options);
    ASSERT_FALSE(fit.network.empty());
    const double before = error_of({}, samples, wanted);
    EXPECT_LT(error_of(fit.network, samples, wanted), 0.3 * before);
    EXPECT_LT(fit.held_out_loss, 0.5 * fit.held_out_power);
    EXPECT_NEAR(fit.held_out_power, 3 * before, 0.1 * fit.held_out_power);  // a floor for the other directions
  }
}

TEST(NetworkFit, ANetworkThatDoesNotHelpIsLeftOut) {
  const DenseMatrix inputs = testing::random_matrix(400, 6, 31), held_out_inputs = testing::random_matrix(100, 6, 32);
  const DenseMatrix noise = testing::random_matrix(400, 10, 33), other_noise = testing::random_matrix(100, 10, 34);
  const TrainedNetwork fit = fit_network({inputs, noise, held_out_inputs, other_noise}, {},
                                         {.width = 64, .max_epochs = 10, .learning_rate = 3e-2f});
  EXPECT_TRUE(fit.network.empty());
  EXPECT_EQ(fit.held_out_loss, fit.held_out_power);
}

TEST(PredictorFit, TheSameSeedGivesTheSamePredictor) {
  const PredictorCase samples = make_case(1.0);
  const PredictorOptions options{.network = {.width = 16, .max_epochs = 4, .seed = 5}};
  EXPECT_EQ(fit_predictor(samples.samples(), options).predictor, fit_predictor(samples.samples(), options).predictor);
}

}  // namespace
}  // namespace scd
