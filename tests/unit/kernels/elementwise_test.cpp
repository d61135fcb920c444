#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "kernels/cpu_level.h"
#include "kernels/number.h"
#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {
namespace {

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(to_bfloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // tie, to even
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3f808001u)).bits, 0x3f81);
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::max()).bits, 0x7f80);  // past the largest: infinity
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Convert, ReadsEveryHalfPrecisionNumber) {
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> values(bits.size());
  convert({bits.data(), 1, 65536, 65536, DType::kF16}, matrix(values.data(), 1, 65536));
  for (size_t i = 0; i < bits.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31);
    const double fraction = static_cast<double>(i & 1023) / 1024.0;
    const double sign = (i & 0x8000) != 0 ? -1.0 : 1.0;
    if (exponent == 31 && fraction != 0.0) {
      ASSERT_TRUE(std::isnan(values[i])) << i;
    } else {
      const double magnitude = exponent == 31  ? std::numeric_limits<double>::infinity()
                               : exponent == 0 ? std::ldexp(fraction, -14)
                                               : std::ldexp(1.0 + fraction, exponent - 15);
      ASSERT_EQ(values[i], sign * magnitude) << i;
    }
  }
}

TEST(Convert, RoundsAndExpandsRows) {
  for (const int64_t n : {1, 31, 33, 100}) {
    OwnedMatrix in = random_matrix(20, n, DType::kF32, 1, 3);
    OwnedMatrix rounded = random_matrix(20, n, DType::kBF16, 2, 5);
    OwnedMatrix back = random_matrix(20, n, DType::kF32, 3, 1);
    convert(in.view(), rounded.view());
    convert(rounded.view(), back.view());
    for (int64_t r = 0; r < 20; ++r) {
      for (int64_t c = 0; c < n; ++c) ASSERT_EQ(back.at(r, c), rounded_to(DType::kBF16, in.at(r, c)));
    }
    EXPECT_TRUE(rounded.padding_is_untouched() && back.padding_is_untouched());
  }
}

TEST(Embedding, TakesTheRowsOfTheIds) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    OwnedMatrix table = random_matrix(7, 33, dtype, 1, 2);
    OwnedMatrix out = random_matrix(4, 33, DType::kF32, 2, 3);
    const std::vector<int32_t> ids{6, 0, 6, 3};
    embedding(table.view(), ids, out.view());
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t c = 0; c < 33; ++c) ASSERT_EQ(out.at(r, c), table.at(ids[static_cast<size_t>(r)], c));
    }
    for (const int32_t outside : {-1, 7}) {
      const std::vector<int32_t> bad{0, 1, 2, outside};
      EXPECT_THROW(embedding(table.view(), bad, out.view()), std::invalid_argument);
    }
    EXPECT_THROW(embedding(table.view(), std::vector<int32_t>{1}, out.view()), std::invalid_argument);
  }
}

class SiluMul : public ::testing::TestWithParam<CpuLevel> {};

TEST_P(SiluMul, MatchesTheDoubleReference) {
  if (cpu_level() < GetParam()) GTEST_SKIP() << "this CPU does not offer level " << static_cast<int>(GetParam());
  const ScopedCpuLevelLimit limit(GetParam());
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 31, 33, 64, 100}) {
      OwnedMatrix in = random_matrix(10, 2 * n, DType::kF32, 1, 3);
      for (int64_t r = 0; r < 10; ++r) {
        for (int64_t c = 0; c < n; ++c) in.set(r, c, static_cast<float>(in.at(r, c) * 30.0));
      }
      OwnedMatrix out = random_matrix(10, n, dtype, 2, 5);
      silu_mul(in.view(), out.view());
      for (int64_t r = 0; r < 10; ++r) {
        for (int64_t c = 0; c < n; ++c) {
          const double gate = in.at(r, c);
          const double expected = gate / (1.0 + std::exp(-gate)) * in.at(r, n + c);
          ASSERT_NEAR(out.at(r, c), expected, (dtype == DType::kBF16 ? 4e-3 : 1e-6) * std::abs(expected) + 1e-12);
        }
      }
      EXPECT_TRUE(out.padding_is_untouched());
    }
  }
}

TEST_P(SiluMul, HoldsAtTheEndsOfTheRange) {
  if (cpu_level() < GetParam()) GTEST_SKIP() << "this CPU does not offer level " << static_cast<int>(GetParam());
  const ScopedCpuLevelLimit limit(GetParam());
  const std::vector<float> gate_up{-1000.0f, 1000.0f, 0.0f, -80.0f, 1.0f, 1.0f, 1.0f, 1.0f};
  std::vector<float> out(4);
  silu_mul(matrix(gate_up.data(), 1, 8), matrix(out.data(), 1, 4));
  EXPECT_NEAR(out[0], 0.0f, 1e-30);
  EXPECT_FLOAT_EQ(out[1], 1000.0f);
  EXPECT_EQ(out[2], 0.0f);
  EXPECT_NEAR(out[3], -80.0 * std::exp(-80.0), 1e-38);
}

INSTANTIATE_TEST_SUITE_P(Levels, SiluMul, ::testing::Values(CpuLevel::kPortable, CpuLevel::kAvx512));

TEST(Elementwise, RefusesWhatDoesNotFit) {
  OwnedMatrix a = random_matrix(2, 8, DType::kF32, 1);
  OwnedMatrix b = random_matrix(2, 4, DType::kF32, 1);
  OwnedMatrix c = random_matrix(3, 4, DType::kF32, 1);
  OwnedMatrix half = random_matrix(2, 8, DType::kBF16, 1);
  EXPECT_THROW(silu_mul(a.view(), c.view()), std::invalid_argument);
  EXPECT_THROW(silu_mul(half.view(), b.view()), std::invalid_argument);
  EXPECT_THROW(convert(a.view(), b.view()), std::invalid_argument);
  Matrix on_gpu = a.view();
  on_gpu.device = Device::kGpu;
  EXPECT_THROW(convert(on_gpu, a.view()), std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels::testing
