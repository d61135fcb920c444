// The shapes of well-known checkpoints, and small ones for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/safetensors_writer.h"

namespace scd {

struct ModelShape {
  std::string name;
  std::string family;
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t intermediate = 0;
  int32_t query_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab = 0;
  int32_t max_positions = 0;
  bool tied_embeddings = false;
  double rope_theta = 10000.0;
  bool llama3_rope = false;
  double rms_epsilon = 1e-5;

  bool qkv_bias() const { return family == "qwen2"; }
  bool qk_norm() const { return family == "qwen3"; }
};

const std::vector<ModelShape>& known_shapes();

// Every tensor of a checkpoint of this shape, in the order of the layers.
std::vector<TensorSpec> tensors_of(const ModelShape& shape, kernels::DType dtype);

}  // namespace scd
