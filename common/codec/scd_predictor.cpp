#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "common/codec/scd_maps.h"
#include "kernels/linear.h"

namespace scd {
namespace {

void fill_rows(kernels::Matrix out, const std::vector<float>& row) {
  SCD_CHECK(static_cast<int64_t>(row.size()) == out.columns, "bias of a predictor");
  for (int64_t r = 0; r < out.rows; ++r) std::copy(row.begin(), row.end(), out.row<float>(r));
}

}  // namespace

void predict_attention_input(const ScdPredictor& predictor, kernels::ConstMatrix codes, kernels::Matrix out) {
  const int64_t rank = codes.rows;
  fill_rows(out, predictor.bias);
  kernels::gemm_f32({.a = codes, .b = predictor.linear.top(rank), .c = out, .transpose_a = true, .beta = 1.0f});
  if (predictor.output.empty()) return;

  DenseMatrix hidden(codes.columns, predictor.input.columns);
  fill_rows(hidden.view(), predictor.input_bias);
  kernels::gemm_f32(
      {.a = codes, .b = predictor.input.top(rank), .c = hidden.view(), .transpose_a = true, .beta = 1.0f});
  for (float& value : hidden.values) value /= 1.0f + std::exp(-value);
  const DenseMatrix& activated = hidden;
  kernels::gemm_f32({.a = activated.view(), .b = predictor.output.view(), .c = out, .beta = 1.0f});
}

}  // namespace scd
