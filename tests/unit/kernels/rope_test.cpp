#include "kernels/rope.h"

#include <gtest/gtest.h>

#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {
namespace {

RopeTable table_of(int64_t head_dim, double base, float attention_scale = 1.0f) {
  RopeTable table{.inverse_frequencies = {}, .attention_scale = attention_scale};
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    table.inverse_frequencies.push_back(
        static_cast<float>(std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim))));
  }
  return table;
}

TEST(Rope, TurnsByHand) {
  // Quarter turns of the pair (x0, x1): the angle is position * pi / 2.
  const RopeTable table{.inverse_frequencies = {1.57079632679f}, .attention_scale = 1.0f};
  std::vector<float> x{3, 4, 3, 4, 3, 4};
  const std::vector<int32_t> positions{0, 1, 2};
  rope(matrix(x.data(), 3, 2), 2, positions, table, RopeDirection::kRotate);
  const std::vector<float> expected{3, 4, -4, 3, -3, -4};
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], expected[i], 1e-6);
}

TEST(Rope, MatchesTheDoubleReference) {
  for (const int64_t head_dim : {2, 6, 64, 80, 128}) {
    const RopeTable table = table_of(head_dim, 10000.0, 1.25f);
    OwnedMatrix x = random_matrix(20, 3 * head_dim, DType::kF32, 1, 3);
    const OwnedMatrix before = x;
    std::vector<int32_t> positions;
    for (int32_t r = 0; r < 20; ++r) positions.push_back(r * 997);  // up to 18,943, over many blocks of the table
    rope(x.view(), head_dim, positions, table, RopeDirection::kRotate);
    for (int64_t r = 0; r < 20; ++r) {
      for (int64_t c = 0; c < 3 * head_dim; ++c) {
        const int64_t i = c % head_dim;
        const int64_t pair = i % (head_dim / 2);
        const bool low = i < head_dim / 2;
        const double angle = static_cast<double>(positions[static_cast<size_t>(r)]) *
                             table.inverse_frequencies[static_cast<size_t>(pair)];
        const double own = before.at(r, c);
        const double other = before.at(r, low ? c + head_dim / 2 : c - head_dim / 2);
        const double expected = 1.25 * (own * std::cos(angle) + (low ? -1.0 : 1.0) * other * std::sin(angle));
        ASSERT_NEAR(x.at(r, c), expected, 5e-7);
      }
    }
    EXPECT_TRUE(x.padding_is_untouched());
  }
}

TEST(Rope, UnrotatingUndoesRotating) {
  const RopeTable table = table_of(64, 500000.0, 1.3f);
  OwnedMatrix x = random_matrix(33, 9 * 64, DType::kF32, 1);
  const OwnedMatrix before = x;
  std::vector<int32_t> positions;
  for (int32_t r = 0; r < 33; ++r) positions.push_back(r * r * 100);
  rope(x.view(), 64, positions, table, RopeDirection::kRotate);
  rope(x.view(), 64, positions, table, RopeDirection::kUnrotate);
  for (int64_t r = 0; r < 33; ++r) {
    for (int64_t c = 0; c < x.columns(); ++c) ASSERT_NEAR(x.at(r, c), before.at(r, c), 1e-6);
  }
}

TEST(Rope, KeepsTheTablesOfDifferentModelsApart) {
  std::vector<float> expected;
  for (int round = 0; round < 3; ++round) {
    for (int model = 0; model < 6; ++model) {  // more than a thread keeps
      OwnedMatrix x = random_matrix(2, 8, DType::kF32, 1);
      const std::vector<int32_t> positions{5, 70};
      rope(x.view(), 8, positions, table_of(8, 100.0 * (model + 1)), RopeDirection::kRotate);
      if (round == 0) {
        expected.push_back(static_cast<float>(x.at(1, 2)));
      } else {
        EXPECT_EQ(static_cast<float>(x.at(1, 2)), expected[static_cast<size_t>(model)]);
      }
    }
  }
  EXPECT_NE(expected[0], expected[1]);
}

TEST(Rope, RefusesWhatDoesNotFit) {
  OwnedMatrix x = random_matrix(2, 8, DType::kF32, 1);
  const RopeTable table = table_of(4, 10000.0);
  const std::vector<int32_t> two{0, 1};
  const std::vector<int32_t> three{0, 1, 2};
  const std::vector<int32_t> negative{0, -1};
  const auto rotate = RopeDirection::kRotate;
  EXPECT_THROW(rope(x.view(), 4, three, table, rotate), std::invalid_argument);
  EXPECT_THROW(rope(x.view(), 4, negative, table, rotate), std::invalid_argument);
  EXPECT_THROW(rope(x.view(), 8, two, table, rotate), std::invalid_argument);
  EXPECT_THROW(rope(x.view(), 3, two, table, rotate), std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels::testing
