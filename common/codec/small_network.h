// One hidden layer with SiLU, added to what a linear map of the same inputs gives: what a decoder knows that no linear
// map tells it.
#pragma once

#include <vector>

#include "common/codec/dense_matrix.h"

namespace scd {

// y += silu([codes anchor] input + input_bias) output + output_bias.
struct SmallNetwork {
  DenseMatrix input;               // [components + dims of the anchor, width]
  std::vector<float> input_bias;   // [width]
  DenseMatrix output;              // [width, dims of y]
  std::vector<float> output_bias;  // [dims of y]; empty: the linear map's holds it

  bool empty() const { return output.empty(); }
  // Of so many inputs and outputs, or nothing at all.
  bool fits(int64_t inputs, int64_t outputs) const;
  bool operator==(const SmallNetwork&) const = default;
};

struct NetworkInputs {
  kernels::ConstMatrix codes;        // [components, tokens] F32; a rank cap leaves the first ones
  kernels::ConstMatrix anchor = {};  // [tokens, dims] F32, or empty
};

// out [tokens, dims of y]. Of an empty network nothing is added.
void add_network(const SmallNetwork& network, const NetworkInputs& inputs, kernels::Matrix out);

}  // namespace scd
