// The algebra of calibration on either device, and the fits that stand on it.
#include "common/codec/calibration/algebra.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/error.h"
#include "common/codec/calibration/network.h"
#include "kernels/second_moment.h"
#include "tests/support/gpu.h"
#include "tests/unit/codec/linear_pair.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using kernels::Device;
using testing::LinearPair;
using testing::random_matrix;

constexpr Eigen::Index kSize = 300;  // large enough for a GPU

MatrixXd random(Eigen::Index rows, Eigen::Index columns, uint32_t seed) {
  const DenseMatrix values = random_matrix(columns, rows, seed);
  return Eigen::Map<const Eigen::MatrixXf>(values.values.data(), rows, columns).cast<double>();
}

class OnEitherDevice : public ::testing::TestWithParam<Device> {
 protected:
  void SetUp() override {
    if (GetParam() == Device::kGpu) SCD_SKIP_WITHOUT_GPU();
  }
  Algebra algebra_{GetParam()};
};

TEST_P(OnEitherDevice, ProductsOfBlocksAndTransposes) {
  const MatrixXd a = random(kSize + 5, kSize, 1), b = random(kSize + 5, kSize - 3, 2);
  const MatrixXd top = a.topRows(kSize);
  EXPECT_LT(
      (algebra_.product(a.block(2, 0, kSize, kSize), b.topRows(kSize)) - a.block(2, 0, kSize, kSize) * b.topRows(kSize))
          .norm(),
      1e-9);
  EXPECT_LT((algebra_.transposed_product(a, b) - a.transpose() * b).norm(), 1e-9);
  EXPECT_LT((algebra_.product_with_transposed(a, top) - a * top.transpose()).norm(), 1e-9);
}

TEST_P(OnEitherDevice, CholeskySolves) {
  const MatrixXd root = random(kSize, kSize, 3);
  const MatrixXd moment = root * root.transpose();
  const MatrixXd ridged = moment + 1e-3 * moment.trace() / kSize * MatrixXd::Identity(kSize, kSize);
  const MatrixXd right = random(kSize, 7, 4);
  const Cholesky factor = algebra_.cholesky(moment, 1e-3);
  EXPECT_LT((ridged * factor.solve(right) - right).norm(), 1e-8);
  EXPECT_LT((factor.solve_upper(factor.solve_lower(right)) - factor.solve(right)).norm(), 1e-10);
  // L^-1 moment L^-T = 1
  const MatrixXd half = factor.solve_lower(ridged);
  EXPECT_LT((factor.solve_lower(half.transpose()) - MatrixXd::Identity(kSize, kSize)).norm(), 1e-8);
  MatrixXd negative = moment;
  negative(5, 5) = -1;
  EXPECT_THROW(algebra_.cholesky(negative, 0.0), Error);
}

TEST_P(OnEitherDevice, SpectraChangeBlockByBlock) {
  MatrixXd matrix = MatrixXd::Zero(kSize + 20, kSize + 20);
  const MatrixXd root = random(kSize, kSize, 5);
  matrix.topLeftCorner(kSize, kSize) = root * root.transpose();
  matrix.bottomRightCorner(20, 20) = 4.0 * MatrixXd::Identity(20, 20);
  const MatrixXd half =
      algebra_.with_spectrum(matrix, [](Eigen::VectorXd& values) { values = values.cwiseMax(0).cwiseSqrt(); });
  EXPECT_LT((half * half - matrix).norm(), 1e-8 * matrix.norm());
  EXPECT_EQ(half(kSize, kSize - 1), 0.0);
  EXPECT_NEAR(half(kSize + 3, kSize + 3), 2.0, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Devices, OnEitherDevice, ::testing::Values(Device::kCpu, Device::kGpu),
                         [](const auto& tested) { return tested.param == Device::kCpu ? "Cpu" : "Cuda"; });

TEST(AlgebraOnCuda, FitsEqualThoseOfTheCpu) {
  SCD_SKIP_WITHOUT_GPU();
  constexpr double kRidge = 0.01;
  LinearPair pair{random_matrix(3000, 300, 1), random_matrix(3000, 300, 2)};  // y: noise and a part of x
  for (size_t i = 0; i < pair.y.values.size(); ++i) {
    pair.y.values[i] += 2.0f * pair.x.values[i] / static_cast<float>(1 + i % 300 / 30);
  }
  const MatrixXd sum = testing::moment_of(pair);
  const RegressionMoment moment{sum, 300, 300};
  const MatrixXd metric = MatrixXd::Identity(300, 300);
  const RateFit here = fit_rate(moment, metric, kRidge),
                there = fit_rate(moment, metric, kRidge, Algebra(Device::kGpu));
  ASSERT_EQ(here.deviations.size(), there.deviations.size());
  for (size_t i = 0; i < here.deviations.size(); ++i) {
    EXPECT_NEAR(there.deviations[i], here.deviations[i], 1e-6 * here.deviations[0]);
  }
  EXPECT_NEAR(there.unpredictable, here.unpredictable, 1e-8 * here.energy);
  const RdUnitDecoder decoder = fit_decoder(moment, here.encoder, kRidge);
  const RdUnitDecoder decoder_there = fit_decoder(moment, here.encoder, kRidge, Algebra(Device::kGpu));
  for (size_t i = 0; i < decoder.map.values.size(); ++i) {
    ASSERT_NEAR(decoder_there.map.values[i], decoder.map.values[i], 1e-5 * (1 + std::abs(decoder.map.values[i])));
  }
}

TEST(AlgebraOnCuda, MomentsAreSummedThere) {
  SCD_SKIP_WITHOUT_GPU();
  const DenseMatrix rows = random_matrix(1500, 70, 1);
  SecondMoment here(70), there(70, Device::kGpu);
  const kernels::DeviceBuffer memory = kernels::buffer_of(std::as_bytes(std::span(rows.values)), Device::kGpu);
  for (int i = 0; i < 2; ++i) {
    here.add(rows.view());
    there.add({memory.data(), rows.rows, rows.columns, rows.columns, kernels::DType::kF32, Device::kGpu});
  }
  EXPECT_EQ(there.samples(), here.samples());
  there.leave_device();
  EXPECT_LT((there.sum() - here.sum()).norm(), 1e-6 * here.sum().norm());
}

// y = silu of a projection: what no regression tells.
TEST(AlgebraOnCuda, NetworksLearnThereWhatTheyLearnHere) {
  SCD_SKIP_WITHOUT_GPU();
  const auto targets_of = [](const DenseMatrix& x) {
    DenseMatrix y(x.rows, 3);
    for (int64_t row = 0; row < x.rows; ++row) {
      const float inner = 2.0f * x.at(row, 0) - x.at(row, 1);
      for (int64_t c = 0; c < 3; ++c) y.at(row, c) = static_cast<float>(c + 1) * inner / (1 + std::exp(-inner));
    }
    return y;
  };
  const DenseMatrix x = random_matrix(2048, 8, 1), held_out = random_matrix(512, 8, 2);
  const DenseMatrix y = targets_of(x), y_held_out = targets_of(held_out);
  NetworkOptions options{.width = 32, .max_epochs = 40, .learning_rate = 1e-2f};
  const TrainedNetwork here = train_network({x, y, held_out, y_held_out}, options);
  options.device = Device::kGpu;
  const TrainedNetwork there = train_network({x, y, held_out, y_held_out}, options);
  EXPECT_LT(here.held_out_loss, 0.05 * here.held_out_power);
  EXPECT_NEAR(there.held_out_loss, here.held_out_loss, 0.02 * here.held_out_power);
}

}  // namespace
}  // namespace scd
