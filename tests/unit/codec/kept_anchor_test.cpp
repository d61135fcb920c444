// Rows over their root mean square, made once.
#include "common/codec/kept_anchor.h"

#include <gtest/gtest.h>

#include "kernels/rms_norm.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

constexpr int64_t kFirst = 5, kTokens = 40;

class KeptAnchorTest : public ::testing::Test {
 protected:
  kernels::ConstMatrix part(int64_t first, int64_t count) const {
    return kernels::matrix(anchor_.view().row<float>(first - kFirst), count, anchor_.columns);
  }
  void expect_scaled(const kernels::Matrix& found, int64_t first) const {
    DenseMatrix expected(found.rows, found.columns);
    kernels::divide_by_rms(part(first, found.rows), part(first, found.rows), expected.view());
    for (int64_t row = 0; row < found.rows; ++row) {
      for (int64_t column = 0; column < found.columns; ++column) {
        if (found.dtype == kernels::DType::kF32) {
          ASSERT_EQ(found.row<float>(row)[column], expected.at(row, column));
        } else {
          const auto number = found.row<kernels::BFloat16>(row)[column];
          ASSERT_EQ(number.bits, kernels::to_bfloat16(expected.at(row, column)).bits);
        }
      }
    }
  }
  DenseMatrix anchor_ = testing::random_matrix(kTokens, 13, 3);
  KeptAnchor kept_{kFirst, kTokens};
};

TEST_F(KeptAnchorTest, RowsAreThoseOverTheirRootMeanSquare) {
  for (const kernels::DType dtype : {kernels::DType::kF32, kernels::DType::kBF16}) {
    for (const auto& [first, count] :
         {std::pair<int64_t, int64_t>{20, 5}, {25, 6}, {18, 4}, {5, 40}, {30, 3}, {5, 1}}) {
      expect_scaled(kept_.rows(part(first, count), first, dtype), first);
    }
  }
}

TEST_F(KeptAnchorTest, MakesRowsOnce) {
  DenseMatrix other = anchor_;
  for (float& value : other.values) value = 1.0f + value * value;
  (void)kept_.rows(part(10, 4), 10, kernels::DType::kF32);
  (void)kept_.rows(part(14, 4), 14, kernels::DType::kF32);
  std::swap(anchor_, other);
  const kernels::Matrix old = kept_.rows(part(11, 6), 11, kernels::DType::kF32);
  std::swap(anchor_, other);
  expect_scaled(old, 11);
  std::swap(anchor_, other);
  expect_scaled(kept_.rows(part(16, 4), 16, kernels::DType::kF32), 16);  // not all of them were there
  kept_.restart(kFirst, kTokens);
  expect_scaled(kept_.rows(part(11, 6), 11, kernels::DType::kF32), 11);
}

TEST_F(KeptAnchorTest, LeavesRoomBehindAlignedRows) {
  const kernels::Matrix found = kept_.rows(part(6, 30), 6, kernels::DType::kBF16, 10);
  EXPECT_EQ(found.columns, 13);
  EXPECT_EQ(found.row_stride, 16 + 16);
  for (int64_t row = 0; row < found.rows; ++row) {
    for (int64_t column = 13; column < 16; ++column) ASSERT_EQ(found.row<kernels::BFloat16>(row)[column].bits, 0);
    for (int64_t column = 16; column < 32; ++column) found.row<kernels::BFloat16>(row)[column].bits = 0xffff;
  }
  expect_scaled(kept_.rows(part(6, 30), 6, kernels::DType::kBF16, 3), 6);
  EXPECT_EQ(kept_.rows(part(6, 30), 6, kernels::DType::kBF16, 40).row_stride, 16 + 40);
}

}  // namespace
}  // namespace scd
