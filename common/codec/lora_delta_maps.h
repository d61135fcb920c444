// What `lora_delta` takes from the consumer's LoRA adapter (common/model/lora.h), by layer. The adapter adds scale * B
// A to a weight, so to what the weight makes of an input x it adds scale * B (A x): the producer sends a = A x of its
// own input, the consumer adds scale * B a. Empty where the adapter leaves the module as it is.
#pragma once

#include "common/codec/dense_matrix.h"

namespace scd {

struct LoraDeltaEncoderLayer {
  DenseMatrix key;    // A of k_proj: [rank, producer hidden]
  DenseMatrix value;  // A of v_proj: [rank, producer hidden]
  bool touched() const { return !key.empty() || !value.empty(); }
  bool operator==(const LoraDeltaEncoderLayer&) const = default;
};

struct LoraDeltaDecoderLayer {
  DenseMatrix key;    // scale * B of k_proj, transposed: [rank, kv_width]
  DenseMatrix value;  // scale * B of v_proj, transposed: [rank, kv_width]
  bool touched() const { return !key.empty() || !value.empty(); }
  bool operator==(const LoraDeltaDecoderLayer&) const = default;
};

}  // namespace scd
