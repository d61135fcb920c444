#include "kernels/linear.h"
#include "kernels/sgemm.h"

#include <gtest/gtest.h>

#include <tuple>

#include "kernels/cpu_level.h"
#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {
namespace {

TEST(Linear, MultipliesByHand) {
  const std::vector<float> weight{1, 2, 3, -1, 0, 4};  // [2, 3]
  const std::vector<float> bias{0.5f, -0.5f};
  const std::vector<float> x{1, 0, 2, 3, 1, 1};  // [2, 3]
  for (DType precision : {DType::kF32, DType::kBF16}) {
    const PackedLinear linear(matrix(weight.data(), 2, 3), bias, precision);
    std::vector<float> y(4, 100.0f);
    linear.forward(matrix(x.data(), 2, 3), matrix(y.data(), 2, 2));
    EXPECT_EQ(y, (std::vector<float>{7.5f, 6.5f, 8.5f, 0.5f}));
    linear.forward(matrix(x.data(), 2, 3), matrix(y.data(), 2, 2), true);
    EXPECT_EQ(y, (std::vector<float>{15.0f, 13.0f, 17.0f, 1.0f}));
  }
}

struct Case {
  CpuLevel level;
  DType precision;
  DType x_dtype;
  DType y_dtype;
  bool bias;
  bool accumulate;
};

// Largest |y - reference| over |x| |W|: the tolerance table of kernels/README.md.
double tolerance(const Case& c) { return c.y_dtype == DType::kBF16 ? 5e-3 : c.precision == DType::kBF16 ? 2e-6 : 1e-6; }

void check_against_double(const Case& c, int64_t rows, int64_t in, int64_t out) {
  const ScopedCpuLevelLimit limit(c.level);
  OwnedMatrix weight = random_matrix(out, in, DType::kF32, 1, 3);
  const std::vector<float> bias = c.bias ? random_vector(out, 2) : std::vector<float>();
  OwnedMatrix x = random_matrix(rows, in, c.x_dtype, 3, 5);
  OwnedMatrix y = random_matrix(rows, out, c.y_dtype, 4, 7);
  const OwnedMatrix before = y;
  const PackedLinear linear(weight.view(), bias, c.precision);
  linear.forward(x.view(), y.view(), c.accumulate);
  const DType x_rounding = c.precision;  // whatever the CPU
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      double sum = (c.bias ? bias[static_cast<size_t>(o)] : 0.0) + (c.accumulate ? before.at(r, o) : 0.0);
      double scale = std::abs(sum) + 1e-3;
      for (int64_t i = 0; i < in; ++i) {
        const double product = rounded_to(x_rounding, x.at(r, i)) * rounded_to(c.precision, weight.at(o, i));
        sum += product;
        scale += std::abs(product);
      }
      ASSERT_NEAR(y.at(r, o), sum, tolerance(c) * scale)
          << "row " << r << " of " << rows << ", out " << o << " of " << out << ", in " << in;
    }
  }
  EXPECT_TRUE(y.padding_is_untouched());
}

class LinearGrid : public ::testing::TestWithParam<std::tuple<CpuLevel, DType, DType, DType>> {};

TEST_P(LinearGrid, MatchesTheDoubleReferenceOnAwkwardSizes) {
  const auto [level, precision, x_dtype, y_dtype] = GetParam();
  if (cpu_level() < level) GTEST_SKIP() << "this CPU does not offer level " << static_cast<int>(level);
  for (const bool bias : {false, true}) {
    for (const bool accumulate : {false, true}) {
      if (accumulate && y_dtype != DType::kF32) continue;
      const Case c{level, precision, x_dtype, y_dtype, bias, accumulate};
      for (const int64_t rows : {1, 3, 4, 5, 17, 33, 64, 100}) check_against_double(c, rows, 64, 48);
      for (const int64_t in : {1, 31, 33, 100, 130}) check_against_double(c, 3, in, 65);
      for (const int64_t in : {1, 31, 33, 100, 130}) check_against_double(c, 31, in, 65);
      for (const int64_t out : {1, 31, 33, 64, 100}) check_against_double(c, 20, 96, out);
    }
  }
}

std::string grid_name(const ::testing::TestParamInfo<LinearGrid::ParamType>& info) {
  const auto name = [](DType dtype) { return std::string(dtype == DType::kF32 ? "F32" : "BF16"); };
  const auto [level, precision, x_dtype, y_dtype] = info.param;
  return "Level" + std::to_string(static_cast<int>(level)) + "Weights" + name(precision) + "From" + name(x_dtype) +
         "To" + name(y_dtype);
}

INSTANTIATE_TEST_SUITE_P(
    All, LinearGrid,
    ::testing::Combine(::testing::Values(CpuLevel::kPortable, CpuLevel::kAvx512Bf16, CpuLevel::kAmx),
                       ::testing::Values(DType::kF32, DType::kBF16), ::testing::Values(DType::kF32, DType::kBF16),
                       ::testing::Values(DType::kF32, DType::kBF16)),
    grid_name);

// Long inputs go in parts and row blocks: their borders must not show.
TEST(Linear, MatchesAcrossBlockBorders) {
  const Case c{CpuLevel::kAmx, DType::kBF16, DType::kF32, DType::kF32, true, true};
  check_against_double(c, 2, 4224, 40);
  check_against_double(c, 20, 4224, 40);
  check_against_double(c, 300, 544, 40);
  Case to_bf16 = c;
  to_bf16.y_dtype = DType::kBF16;
  to_bf16.accumulate = false;
  check_against_double(to_bf16, 20, 4224, 40);
}

TEST(Linear, GivesTheSameForOneRowAsForMany) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    OwnedMatrix weight = random_matrix(96, 200, DType::kF32, 1);
    OwnedMatrix x = random_matrix(40, 200, DType::kF32, 2);
    OwnedMatrix together = random_matrix(40, 96, DType::kF32, 3);
    const PackedLinear linear(weight.view(), {}, precision);
    linear.forward(x.view(), together.view());
    for (int64_t r = 0; r < 40; ++r) {
      std::vector<float> alone(96);
      const Matrix row{x.view().row<float>(r), 1, 200, 200};
      linear.forward(row, matrix(alone.data(), 1, 96));
      for (int64_t o = 0; o < 96; ++o) ASSERT_NEAR(alone[static_cast<size_t>(o)], together.at(r, o), 1e-5);
    }
  }
}

TEST(Linear, PacksEveryDTypeOfAWeightAlike) {
  const std::vector<uint16_t> half{0x3c00, 0xc000, 0x3800, 0x0001, 0x7bff, 0x8000};  // 1, -2, .5, 2^-24, 65504, -0
  const std::vector<float> expected{1.0f, -2.0f, 0.5f, 0x1p-24f, 65504.0f, -0.0f};
  const ConstMatrix weight{half.data(), 6, 1, 1, DType::kF16};
  const PackedLinear linear(weight, {}, DType::kF32);
  const float one = 1.0f;
  std::vector<float> y(6);
  linear.forward(matrix(&one, 1, 1), matrix(y.data(), 1, 6));
  EXPECT_EQ(y, expected);
}

TEST(Linear, HoldsOneCopyOfItsWeights) {
  OwnedMatrix weight = random_matrix(256, 512, DType::kF32, 1);
  EXPECT_EQ(PackedLinear(weight.view(), {}, DType::kBF16).packed_bytes(), 256u * 512 * 2);
  EXPECT_EQ(PackedLinear(weight.view(), {}, DType::kF32).packed_bytes(), 256u * 512 * 4);
}

TEST(Linear, FewerInputsCountAsZeros) {
  for (const CpuLevel level : {CpuLevel::kPortable, CpuLevel::kAvx512Bf16, CpuLevel::kAmx}) {
    const ScopedCpuLevelLimit limit(level);
    for (const DType precision : {DType::kF32, DType::kBF16}) {
      OwnedMatrix weight = random_matrix(70, 100, DType::kF32, 1);
      const PackedLinear linear(weight.view(), std::vector<float>(70, 0.5f), precision);
      for (const auto& [rows, inputs] : {std::pair{1, 33}, {3, 64}, {50, 1}, {50, 64}, {50, 99}}) {
        OwnedMatrix few = random_matrix(rows, inputs, DType::kF32, 2);
        OwnedMatrix all(rows, 100, DType::kF32);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < 100; ++c) all.set(r, c, c < inputs ? few.at(r, c) : 0.0f);
        }
        OwnedMatrix expected(rows, 70, DType::kF32), y(rows, 70, DType::kF32);
        linear.forward(all.view(), expected.view());
        linear.forward(few.view(), y.view());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < 70; ++c) ASSERT_NEAR(y.at(r, c), expected.at(r, c), 1e-5) << rows << " " << inputs;
        }
      }
    }
  }
}

TEST(Linear, RefusesWhatDoesNotFit) {
  OwnedMatrix weight = random_matrix(8, 16, DType::kF32, 1);
  OwnedMatrix x = random_matrix(2, 16, DType::kF32, 2);
  OwnedMatrix y = random_matrix(2, 8, DType::kF32, 3);
  OwnedMatrix y_bf16 = random_matrix(2, 8, DType::kBF16, 3);
  OwnedMatrix wide = random_matrix(2, 17, DType::kF32, 2);
  EXPECT_THROW(PackedLinear(weight.view(), {}, DType::kF16), std::invalid_argument);
  EXPECT_THROW(PackedLinear(weight.view(), std::vector<float>(7), DType::kF32), std::invalid_argument);
  const PackedLinear linear(weight.view(), {}, DType::kF32);
  EXPECT_THROW(linear.forward(wide.view(), y.view()), std::invalid_argument);
  EXPECT_THROW(linear.forward(x.view(), wide.view()), std::invalid_argument);
  EXPECT_THROW(linear.forward(x.view(), y_bf16.view(), true), std::invalid_argument);
  const Matrix no_rows{nullptr, 0, 16, 16};
  const Matrix no_output{nullptr, 0, 8, 8};
  linear.forward(no_rows, no_output);
}

class GemmF32 : public ::testing::TestWithParam<std::tuple<bool, bool>> {};

TEST_P(GemmF32, MatchesTheDoubleReference) {
  const auto [transpose_a, transpose_b] = GetParam();
  for (const auto& [m, n, k] : {std::tuple{1, 1, 1}, {31, 33, 64}, {100, 7, 513}, {500, 400, 20}}) {
    OwnedMatrix a = transpose_a ? random_matrix(k, m, DType::kF32, 1, 2) : random_matrix(m, k, DType::kF32, 1, 2);
    OwnedMatrix b = transpose_b ? random_matrix(n, k, DType::kF32, 2, 3) : random_matrix(k, n, DType::kF32, 2, 3);
    OwnedMatrix c = random_matrix(m, n, DType::kF32, 3, 4);
    const OwnedMatrix before = c;
    OwnedMatrix loops = c;
    gemm_f32({a.view(), b.view(), c.view(), transpose_a, transpose_b, 0.5f});
    cpu::sgemm_reference({a.view(), b.view(), loops.view(), transpose_a, transpose_b, 0.5f});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0.5 * before.at(i, j);
        for (int64_t l = 0; l < k; ++l) {
          sum += (transpose_a ? a.at(l, i) : a.at(i, l)) * (transpose_b ? b.at(j, l) : b.at(l, j));
        }
        ASSERT_NEAR(c.at(i, j), sum, 1e-6 * (k + 1)) << i << " " << j << " k " << k;
        ASSERT_NEAR(loops.at(i, j), sum, 1e-6 * (k + 1)) << i << " " << j << " k " << k;
      }
    }
    EXPECT_TRUE(c.padding_is_untouched());
  }
}

INSTANTIATE_TEST_SUITE_P(All, GemmF32, ::testing::Combine(::testing::Bool(), ::testing::Bool()));

TEST(GemmF32, AddsItsBiasToEveryRow) {
  const std::vector<float> bias = random_vector(400, 4);
  OwnedMatrix a = random_matrix(390, 20, DType::kF32, 1), b = random_matrix(20, 400, DType::kF32, 2);
  OwnedMatrix c = random_matrix(390, 400, DType::kF32, 3, 2), plain = c;
  gemm_f32({.a = a.view(), .b = b.view(), .c = plain.view(), .beta = 1.0f});
  gemm_f32({.a = a.view(), .b = b.view(), .c = c.view(), .beta = 1.0f, .bias = bias});
  for (int64_t r = 0; r < 390; ++r) {
    for (int64_t o = 0; o < 400; ++o) ASSERT_NEAR(c.at(r, o), plain.at(r, o) + bias[static_cast<size_t>(o)], 2e-6);
  }
  EXPECT_TRUE(c.padding_is_untouched());
  EXPECT_THROW(gemm_f32({.a = a.view(), .b = b.view(), .c = c.view(), .bias = std::span(bias).first(3)}),
               std::invalid_argument);
}

TEST(GemmF32, RefusesShapesThatDoNotFit) {
  OwnedMatrix a = random_matrix(3, 4, DType::kF32, 1);
  OwnedMatrix b = random_matrix(5, 2, DType::kF32, 2);
  OwnedMatrix c = random_matrix(3, 2, DType::kF32, 3);
  EXPECT_THROW(gemm_f32({a.view(), b.view(), c.view()}), std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels::testing
