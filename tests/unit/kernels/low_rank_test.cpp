#include "kernels/low_rank.h"

#include <gtest/gtest.h>

#include <tuple>

#include "kernels/cpu_level.h"
#include "tests/unit/kernels/low_rank_factors.h"
#include "tests/unit/kernels/on_cuda.h"

namespace scd::kernels::testing {
namespace {

TEST(LowRank, MultipliesByHand) {
  const std::vector<float> a{1, 0, 2, 0, 1, 0};  // [2, 3]
  const std::vector<float> b{1, 1, 0, 3};        // [2, 2]
  const std::vector<float> x{1, 2, 3, 1, 1, 1};  // [2, 3]
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    const LowRankPart part{1, matrix(a.data(), 2, 3), matrix(b.data(), 2, 2)};
    const PackedLowRank factors(std::span(&part, 1), 3, 4, precision);
    std::vector<float> y(8, 10.0f);
    const LowRankSet set({&factors}, Device::kCpu);
    LowRankRows rows;
    rows.assign(std::vector<const LowRankSet*>{nullptr, &set}, Device::kCpu);
    add_low_rank(matrix(x.data(), 2, 3), matrix(y.data(), 2, 4), rows, 0);
    EXPECT_EQ(y, (std::vector<float>{10, 10, 10, 10, 10, 14, 13, 10}));
  }
}

struct Case {
  CpuLevel level;
  DType precision, x_dtype, y_dtype;
  Device device = Device::kCpu;
};

// y of the rows that `rows` names against sums in double; the others as they were.
void check_against_double(const Case& c, std::span<const PartShape> shapes, int64_t in, int64_t out,
                          std::span<const int32_t> group_of_row) {
  const ScopedCpuLevelLimit limit(c.level);
  std::vector<Factors> given;
  std::vector<PackedLowRank> packed;
  for (uint32_t i = 0; i < 3; ++i) given.push_back(random_factors(shapes, in, out, 100 * i));
  for (Factors& factors : given) packed.push_back(factors.packed(c.precision, c.device));
  std::vector<LowRankSet> sets;  // whose first factors are others, or none
  for (const PackedLowRank& one : packed) {
    sets.push_back(LowRankSet({sets.empty() ? nullptr : &packed[0], &one}, c.device));
  }
  const auto count = static_cast<int64_t>(group_of_row.size());
  std::vector<const LowRankSet*> set_of_row;
  for (const int32_t group : group_of_row)
    set_of_row.push_back(group < 0 ? nullptr : &sets[static_cast<size_t>(group)]);
  LowRankRows rows;
  rows.assign(set_of_row, c.device);
  OwnedMatrix x = random_matrix(count, in, c.x_dtype, 3, 5), y = random_matrix(count, out, c.y_dtype, 4, 7);
  const OwnedMatrix before = y;
  if (c.device == Device::kGpu) {
    const OnCuda x_there(x), y_there(y);
    add_low_rank(x_there.view(), y_there.view(), rows, 1);
    y_there.bring_back();
  } else {
    add_low_rank(x.view(), y.view(), rows, 1);
  }
  EXPECT_TRUE(y.padding_is_untouched());
  for (int64_t r = 0; r < count; ++r) {
    std::vector<double> sums(static_cast<size_t>(out)), scales(static_cast<size_t>(out));
    const int32_t group = group_of_row[static_cast<size_t>(r)];
    for (size_t p = 0; p < shapes.size() && group >= 0; ++p) {
      const Factors& factors = given[static_cast<size_t>(group)];
      for (int64_t k = 0; k < shapes[p].rank; ++k) {
        double low = 0, scale = 0;
        for (int64_t i = 0; i < in; ++i) {
          const double product = rounded_to(c.precision, x.at(r, i)) * rounded_to(c.precision, factors.a[p].at(k, i));
          low += product;
          scale += std::abs(product);
        }
        for (int64_t o = 0; o < shapes[p].outputs; ++o) {
          const auto at = static_cast<size_t>(shapes[p].first_output + o);
          const double b = rounded_to(c.precision, factors.b[p].at(o, k));
          sums[at] += rounded_to(c.precision, low) * b;
          // x A^T may be rounded to a neighbour.
          scales[at] +=
              std::abs(b) * (c.precision == DType::kBF16 ? 8e-3 * std::abs(low) + 2e-6 * scale : 2e-6 * scale);
        }
      }
    }
    for (int64_t o = 0; o < out; ++o) {
      const double expected = before.at(r, o) + sums[static_cast<size_t>(o)];
      const double rounding = c.y_dtype == DType::kBF16 && group >= 0 ? 5e-3 * std::abs(expected) : 0;
      ASSERT_NEAR(y.at(r, o), expected, scales[static_cast<size_t>(o)] + rounding + (group >= 0 ? 1e-6 : 0))
          << "row " << r << ", out " << o << ", in " << in;
    }
  }
}

void check_awkward_sizes(const Case& c) {
  const std::vector<int32_t> mixed{2, -1, 0, 0, 2, 1, -1, 2, 2};
  for (const int64_t in : {1, 31, 33, 64, 130}) {
    for (const int64_t rank : {1, 3, 8, 16, 33}) {
      const PartShape part{0, 65, rank};
      check_against_double(c, std::span(&part, 1), in, 65, mixed);
    }
  }
  // Queries, none for keys, values: parts of different ranks with a gap between them.
  const std::vector<PartShape> fused{{0, 48, 5}, {60, 20, 16}};
  check_against_double(c, fused, 96, 90, mixed);
  for (const size_t rows : {1, 7, 8, 9, 40}) check_against_double(c, fused, 64, 80, std::vector<int32_t>(rows, 1));
  check_against_double(c, fused, 64, 80, std::vector<int32_t>(5, -1));
}

class LowRankGrid : public ::testing::TestWithParam<std::tuple<CpuLevel, DType, DType, DType>> {};

TEST_P(LowRankGrid, MatchesTheDoubleReferenceOnAwkwardSizes) {
  const auto [level, precision, x_dtype, y_dtype] = GetParam();
  if (cpu_level() < level) GTEST_SKIP() << "this CPU does not offer level " << static_cast<int>(level);
  check_awkward_sizes({level, precision, x_dtype, y_dtype});
}

INSTANTIATE_TEST_SUITE_P(All, LowRankGrid,
                         ::testing::Combine(::testing::Values(CpuLevel::kPortable, CpuLevel::kAvx512Bf16),
                                            ::testing::Values(DType::kF32, DType::kBF16),
                                            ::testing::Values(DType::kF32, DType::kBF16),
                                            ::testing::Values(DType::kF32, DType::kBF16)));

TEST_F(Cuda, LowRankTermsMatchTheDoubleReferenceOnAwkwardSizes) {
  constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};
  const std::vector<PartShape> wide{{0, 300, 16}, {310, 257, 40}};  // more outputs than a block has threads
  for (const DType precision : kDTypes) {
    for (const DType x_dtype : kDTypes) {
      for (const DType y_dtype : kDTypes) {
        const Case c{CpuLevel::kPortable, precision, x_dtype, y_dtype, Device::kGpu};
        check_awkward_sizes(c);
        check_against_double(c, wide, 300, 570, std::vector<int32_t>{1, 0, 2, 1});
      }
    }
  }
}

// Recorded once for rows without factors, it serves whichever sets come later.
TEST_F(Cuda, RecordedLowRankTermsServeAnySets) {
  const std::vector<PartShape> fused{{0, 48, 5}, {60, 20, 16}};
  constexpr int64_t kRows = 4, kIn = 64, kOut = 80;
  OwnedMatrix x = random_matrix(kRows, kIn, DType::kBF16, 2), y = random_matrix(kRows, kOut, DType::kF32, 3);
  const OwnedMatrix before = y;
  OwnedMatrix expected = y;
  const OnCuda x_there(x), y_there(y), expected_there(expected);
  LowRankRows rows, any;
  any.reserve(kRows, Device::kGpu);
  const std::vector<const LowRankSet*> nobody(kRows);
  any.assign(nobody, Device::kGpu, /*for_any=*/true);
  const auto add_any = [&] { add_low_rank(x_there.view(), y_there.view(), any, 0); };
  add_any();
  RecordedWork recording;
  recording.record(add_any);
  y_there.bring_back();
  expect_near(y, before, 0);
  for (const uint32_t seed : {1, 2}) {
    const PackedLowRank first = random_factors(fused, kIn, kOut, seed).packed(DType::kBF16, Device::kGpu);
    const PackedLowRank second = random_factors(fused, kIn, kOut, 50 + seed).packed(DType::kF32, Device::kGpu);
    const LowRankSet one({&first}, Device::kGpu), other({&second}, Device::kGpu), empty({nullptr}, Device::kGpu);
    const std::vector<const LowRankSet*> sets{&other, nullptr, &one, &empty};
    any.assign(sets, Device::kGpu, true);
    recording.replay();
    rows.assign(sets, Device::kGpu);
    add_low_rank(x_there.view(), expected_there.view(), rows, 0);
    y_there.bring_back();
    expected_there.bring_back();
    expect_near(y, expected, 0);
    EXPECT_NE(y.at(0, 0), before.at(0, 0));
    EXPECT_EQ(y.at(1, 0), before.at(1, 0));
  }
}

TEST(LowRank, ARowsResultDoesNotDependOnTheOthers) {
  const PartShape part{0, 100, 16};
  Factors given = random_factors(std::span(&part, 1), 70, 100, 1);
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    const PackedLowRank factors = given.packed(precision);
    OwnedMatrix x = random_matrix(19, 70, DType::kF32, 2), y = random_matrix(19, 100, DType::kF32, 3);
    OwnedMatrix alone = y;
    const LowRankSet set({&factors}, Device::kCpu);
    LowRankRows rows;
    for (size_t row = 0; row < 19; ++row) {
      std::vector<const LowRankSet*> one(19);
      one[row] = &set;
      rows.assign(one, Device::kCpu);
      add_low_rank(x.view(), alone.view(), rows, 0);
    }
    rows.assign(std::vector<const LowRankSet*>(19, &set), Device::kCpu);
    add_low_rank(x.view(), y.view(), rows, 0);
    for (int64_t r = 0; r < 19; ++r) {
      for (int64_t o = 0; o < 100; ++o) ASSERT_EQ(y.at(r, o), alone.at(r, o));
    }
  }
}

TEST(LowRank, RefusesWhatDoesNotFit) {
  const PartShape part{0, 8, 4};
  Factors given = random_factors(std::span(&part, 1), 16, 8, 1);
  EXPECT_THROW(given.packed(DType::kF16), std::invalid_argument);
  given.out = 7;
  EXPECT_THROW(given.packed(DType::kF32), std::invalid_argument);
  given.out = 8;
  given.in = 15;
  EXPECT_THROW(given.packed(DType::kF32), std::invalid_argument);
  const std::vector<PartShape> overlapping{{0, 8, 4}, {7, 8, 4}};
  EXPECT_THROW(random_factors(overlapping, 16, 20, 1).packed(DType::kF32), std::invalid_argument);
  const PartShape huge{0, 8, PackedLowRank::kMaxRank + 1};
  EXPECT_THROW(random_factors(std::span(&huge, 1), 16, 8, 1).packed(DType::kF32), std::invalid_argument);
  given.in = 16;
  const PackedLowRank factors = given.packed(DType::kF32);
  OwnedMatrix x = random_matrix(2, 16, DType::kF32, 2), narrow = random_matrix(2, 15, DType::kF32, 2);
  OwnedMatrix y = random_matrix(2, 8, DType::kF32, 3);
  const LowRankSet set({&factors}, Device::kCpu);
  LowRankRows rows;
  rows.assign(std::vector<const LowRankSet*>(3, &set), Device::kCpu);
  EXPECT_THROW(add_low_rank(x.view(), y.view(), rows, 0), std::invalid_argument) << "three rows of two";
  rows.assign(std::vector<const LowRankSet*>(2, &set), Device::kCpu);
  EXPECT_THROW(add_low_rank(x.view(), y.view(), rows, 1), std::invalid_argument);
  EXPECT_THROW(add_low_rank(narrow.view(), y.view(), rows, 0), std::invalid_argument);
  const std::vector<PartShape> many(PackedLowRank::kMaxParts + 1, {0, 1, 1});
  EXPECT_THROW(random_factors(many, 16, 8, 1).packed(DType::kF32), std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels::testing
