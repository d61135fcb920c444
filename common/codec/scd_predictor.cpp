#include <algorithm>

#include "common/base/check.h"
#include "common/codec/scd_maps.h"
#include "kernels/linear.h"

namespace scd {

void predict_attention_input(const ScdPredictor& predictor, kernels::ConstMatrix codes, kernels::Matrix out) {
  SCD_CHECK(std::ssize(predictor.bias) == out.columns, "bias of a predictor");
  for (int64_t row = 0; row < out.rows; ++row) std::ranges::copy(predictor.bias, out.row<float>(row));
  kernels::gemm_f32({.a = codes, .b = predictor.linear.top(codes.rows), .c = out, .transpose_a = true, .beta = 1.0f});
  add_network(predictor.network, {codes}, out);
}

}  // namespace scd
