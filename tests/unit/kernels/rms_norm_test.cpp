#include "kernels/rms_norm.h"

#include <gtest/gtest.h>

#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {
namespace {

// rms_norm of one row in double.
std::vector<double> reference(const std::vector<double>& x, const std::vector<float>& weight, double epsilon) {
  double squares = 0.0;
  for (double value : x) squares += value * value;
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + epsilon);
  std::vector<double> y;
  for (size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * weight[i]);
  return y;
}

double tolerance(DType dtype) { return dtype == DType::kBF16 ? 1.6e-2 : 2e-6; }

TEST(RmsNorm, NormalisesByHand) {
  const std::vector<float> x{3, -4, 0, 0};  // mean square 6.25
  const std::vector<float> weight{1, 2, 1, 1};
  std::vector<float> y(4);
  rms_norm(matrix(x.data(), 1, 4), weight, 0.0f, matrix(y.data(), 1, 4));
  EXPECT_FLOAT_EQ(y[0], 1.2f);
  EXPECT_FLOAT_EQ(y[1], -3.2f);
  EXPECT_FLOAT_EQ(y[2], 0.0f);
}

TEST(RmsNorm, MatchesTheDoubleReference) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 31, 33, 64, 100, 576}) {
      OwnedMatrix x = random_matrix(11, n, DType::kF32, 1, 3);
      OwnedMatrix y = random_matrix(11, n, dtype, 2, 5);
      const std::vector<float> weight = random_vector(n, 3);
      rms_norm(x.view(), weight, 1e-5f, y.view());
      for (int64_t r = 0; r < 11; ++r) {
        std::vector<double> row;
        for (int64_t c = 0; c < n; ++c) row.push_back(x.at(r, c));
        const std::vector<double> expected = reference(row, weight, 1e-5f);
        for (int64_t c = 0; c < n; ++c) ASSERT_NEAR(y.at(r, c), expected[static_cast<size_t>(c)], tolerance(dtype));
      }
      EXPECT_TRUE(y.padding_is_untouched());
    }
  }
}

TEST(RmsNorm, NormalisesEveryHeadApart) {
  OwnedMatrix x = random_matrix(10, 3 * 31, DType::kF32, 1, 2);
  const OwnedMatrix before = x;
  const std::vector<float> weight = random_vector(31, 2);
  rms_norm_heads(x.view(), 31, weight, 1e-6f);
  for (int64_t r = 0; r < 10; ++r) {
    for (int64_t head = 0; head < 3; ++head) {
      std::vector<double> row;
      for (int64_t c = 0; c < 31; ++c) row.push_back(before.at(r, head * 31 + c));
      const std::vector<double> expected = reference(row, weight, 1e-6f);
      for (int64_t c = 0; c < 31; ++c) ASSERT_NEAR(x.at(r, head * 31 + c), expected[static_cast<size_t>(c)], 2e-6);
    }
  }
  EXPECT_TRUE(x.padding_is_untouched());
}

TEST(RmsNorm, RefusesWhatDoesNotFit) {
  OwnedMatrix x = random_matrix(2, 8, DType::kF32, 1);
  OwnedMatrix narrow = random_matrix(2, 7, DType::kF32, 1);
  const std::vector<float> weight(8);
  const std::vector<float> short_weight(7);
  EXPECT_THROW(rms_norm(x.view(), weight, 1e-5f, narrow.view()), std::invalid_argument);
  EXPECT_THROW(rms_norm(x.view(), short_weight, 1e-5f, x.view()), std::invalid_argument);
  EXPECT_THROW(rms_norm_heads(x.view(), 3, weight, 1e-5f), std::invalid_argument);
  EXPECT_THROW(rms_norm_heads(x.view(), 4, weight, 1e-5f), std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels::testing
