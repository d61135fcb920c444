// The linear maps and small networks of the `scd` codec, as calibrated: "Semantic Cache Distillation: Efficient State
// Transfer via Reuse and Selective Patching" (arXiv:2606.07684).
//
// Reuse (most layers): samples are (token x head) rows of width head_dim, keys after undoing RoPE; one map a layer for
// keys and one for values serves all heads. Patch (few layers): the RMS-normalised attention input is sent instead, and
// the consumer predicts its own by a linear map plus a small network, then applies its own key and value weights.
#pragma once

#include <vector>

#include "common/codec/dense_matrix.h"
#include "common/codec/small_network.h"

namespace scd {

// Rows are components ordered by importance: a cap on the rank keeps the first rows. A layer is either Reuse (key and
// value set) or Patch (hidden set).
struct ScdLayerEncoder {
  DenseMatrix key;     // W_enc,K transposed: [rank_key, head_dim]
  DenseMatrix value;   // W_enc,V transposed: [rank_value, head_dim]
  DenseMatrix hidden;  // W_enc,H transposed: [rank_hidden, producer hidden]

  bool is_patch() const { return !hidden.empty(); }
  bool operator==(const ScdLayerEncoder&) const = default;
};

// x_B = Z linear + bias, and what a network adds.
struct ScdPredictor {
  DenseMatrix linear;       // [rank_hidden, consumer hidden]
  std::vector<float> bias;  // [consumer hidden]
  SmallNetwork network;     // of the codes; its output bias is part of `bias`

  bool operator==(const ScdPredictor&) const = default;
};

struct ScdLayerDecoder {
  DenseMatrix key;         // W_dec,B of keys: [rank_key, head_dim]
  DenseMatrix value;       // W_dec,B of values: [rank_value, head_dim]
  ScdPredictor predictor;  // Patch only

  bool is_patch() const { return !predictor.linear.empty(); }
  bool operator==(const ScdLayerDecoder&) const = default;
};

// Applies a predictor to codes. codes [rank, tokens] F32 component-major, rank <= rows of `linear`; out [tokens,
// hidden].
void predict_attention_input(const ScdPredictor& predictor, kernels::ConstMatrix codes, kernels::Matrix out);

}  // namespace scd
