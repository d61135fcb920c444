#include "tools/scd/unit_pairs.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tools/scd/unit_pass.h"

namespace scd {
namespace {

TEST(UnitPairs, StayWithinTheirBytesAndKeepRowsTogether) {
  const CodecModel model{.layers = 4, .kv_heads = 1, .head_dim = 2, .hidden = 3, .rope = {}};
  const std::vector<AnchoredUnit> units = anchored_units(LayerPlan{1, {{1, 2}, {3, 1, true}}}, {4, 4});
  // x [K V of two layers, h_A] and y alike, of the residual r and h: 2 * 11 + 2 * 6 values of 2 bytes a token.
  UnitPairs pairs(model, model, units, {.bytes = 300 * 2 * (2 * 11 + 2 * 6), .tokens = 4096, .seed = 3});
  DenseMatrix all(1000, 23);
  for (int64_t row = 0; row < all.rows; ++row) {
    const auto value = static_cast<float>(row % 256);  // exact in BF16
    float* values = all.view().row<float>(row);
    std::fill_n(values, 11, value);
    std::fill_n(values + 11, 8, -value);
    std::fill_n(values + 19, 3, value / 2);
    values[22] = 1.0f;
  }
  pairs.add(0, {all.view(), widths_of(units[0], model, model)});
  const UnitPairs::Rows rows = pairs.rows(units[0]);
  ASSERT_EQ(rows.x.rows, 300);
  ASSERT_EQ(rows.y.columns, 8);
  ASSERT_EQ(rows.h.columns, 3);
  for (int64_t row = 0; row < 300; ++row) {
    EXPECT_EQ(rows.y.at(row, 7), -rows.x.at(row, 0));
    EXPECT_EQ(rows.h.at(row, 0), rows.x.at(row, 10) / 2);
  }
}

}  // namespace
}  // namespace scd
