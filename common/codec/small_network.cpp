#include "common/codec/small_network.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "kernels/linear.h"

namespace scd {

bool SmallNetwork::fits(int64_t inputs, int64_t outputs) const {
  if (empty()) return input.empty() && input_bias.empty() && output_bias.empty();
  const int64_t width = output.rows;
  return input.rows == inputs && input.columns == width && std::ssize(input_bias) == width &&
         output.columns == outputs && (output_bias.empty() || std::ssize(output_bias) == outputs);
}

void add_network(const SmallNetwork& network, const NetworkInputs& inputs, kernels::Matrix out) {
  if (network.empty()) return;
  const auto& [codes, anchor] = inputs;
  SCD_CHECK(codes.rows + anchor.columns <= network.input.rows, "inputs of a network");
  const int64_t width = network.input.columns;
  DenseMatrix hidden(out.rows, width);
  for (int64_t row = 0; row < out.rows; ++row) std::ranges::copy(network.input_bias, hidden.view().row<float>(row));
  if (codes.rows > 0) {
    kernels::gemm_f32(
        {.a = codes, .b = network.input.top(codes.rows), .c = hidden.view(), .transpose_a = true, .beta = 1.0f});
  }
  if (anchor.columns > 0) {
    const kernels::ConstMatrix weights =
        kernels::matrix(network.input.view().row<float>(network.input.rows - anchor.columns), anchor.columns, width);
    kernels::gemm_f32({.a = anchor, .b = weights, .c = hidden.view(), .beta = 1.0f});
  }
  for (float& value : hidden.values) value /= 1.0f + std::exp(-value);
  kernels::gemm_f32({.a = std::as_const(hidden).view(), .b = network.output.view(), .c = out, .beta = 1.0f});
  if (network.output_bias.empty()) return;
  for (int64_t row = 0; row < out.rows; ++row) {
    auto* values = out.row<float>(row);
    for (int64_t i = 0; i < out.columns; ++i) values[i] += network.output_bias[static_cast<size_t>(i)];
  }
}

}  // namespace scd
