#include "common/model/model_shapes.h"

namespace scd {

const std::vector<ModelShape>& known_shapes() {
  static const std::vector<ModelShape> shapes{
      {.name = "tiny",
       .family = "llama",
       .layers = 4,
       .hidden = 64,
       .intermediate = 160,
       .query_heads = 4,
       .kv_heads = 2,
       .head_dim = 16,
       .vocab = 320,
       .max_positions = 2048},
      {.name = "small",
       .family = "llama",
       .layers = 8,
       .hidden = 256,
       .intermediate = 640,
       .query_heads = 4,
       .kv_heads = 2,
       .head_dim = 64,
       .vocab = 512,
       .max_positions = 8192},
      {.name = "smollm2-135m",
       .family = "llama",
       .layers = 30,
       .hidden = 576,
       .intermediate = 1536,
       .query_heads = 9,
       .kv_heads = 3,
       .head_dim = 64,
       .vocab = 49152,
       .max_positions = 8192,
       .tied_embeddings = true,
       .rope_theta = 100000.0},
      {.name = "llama-3.2-1b",
       .family = "llama",
       .layers = 16,
       .hidden = 2048,
       .intermediate = 8192,
       .query_heads = 32,
       .kv_heads = 8,
       .head_dim = 64,
       .vocab = 128256,
       .max_positions = 131072,
       .tied_embeddings = true,
       .rope_theta = 500000.0,
       .llama3_rope = true},
      {.name = "llama-3.2-3b",
       .family = "llama",
       .layers = 28,
       .hidden = 3072,
       .intermediate = 8192,
       .query_heads = 24,
       .kv_heads = 8,
       .head_dim = 128,
       .vocab = 128256,
       .max_positions = 131072,
       .tied_embeddings = true,
       .rope_theta = 500000.0,
       .llama3_rope = true},
      {.name = "llama-3.1-8b",
       .family = "llama",
       .layers = 32,
       .hidden = 4096,
       .intermediate = 14336,
       .query_heads = 32,
       .kv_heads = 8,
       .head_dim = 128,
       .vocab = 128256,
       .max_positions = 131072,
       .rope_theta = 500000.0,
       .llama3_rope = true},
      {.name = "mistral-7b",
       .family = "mistral",
       .layers = 32,
       .hidden = 4096,
       .intermediate = 14336,
       .query_heads = 32,
       .kv_heads = 8,
       .head_dim = 128,
       .vocab = 32768,
       .max_positions = 32768,
       .rope_theta = 1000000.0},
      {.name = "qwen2.5-0.5b",
       .family = "qwen2",
       .layers = 24,
       .hidden = 896,
       .intermediate = 4864,
       .query_heads = 14,
       .kv_heads = 2,
       .head_dim = 64,
       .vocab = 151936,
       .max_positions = 32768,
       .tied_embeddings = true,
       .rope_theta = 1000000.0,
       .rms_epsilon = 1e-6},
      {.name = "qwen2.5-7b",
       .family = "qwen2",
       .layers = 28,
       .hidden = 3584,
       .intermediate = 18944,
       .query_heads = 28,
       .kv_heads = 4,
       .head_dim = 128,
       .vocab = 152064,
       .max_positions = 32768,
       .rope_theta = 1000000.0,
       .rms_epsilon = 1e-6},
      {.name = "qwen3-0.6b",
       .family = "qwen3",
       .layers = 28,
       .hidden = 1024,
       .intermediate = 3072,
       .query_heads = 16,
       .kv_heads = 8,
       .head_dim = 128,
       .vocab = 151936,
       .max_positions = 40960,
       .tied_embeddings = true,
       .rope_theta = 1000000.0,
       .rms_epsilon = 1e-6},
      {.name = "qwen3-8b",
       .family = "qwen3",
       .layers = 36,
       .hidden = 4096,
       .intermediate = 12288,
       .query_heads = 32,
       .kv_heads = 8,
       .head_dim = 128,
       .vocab = 151936,
       .max_positions = 40960,
       .rope_theta = 1000000.0,
       .rms_epsilon = 1e-6},
  };
  return shapes;
}

std::vector<TensorSpec> tensors_of(const ModelShape& shape, kernels::DType dtype) {
  const int64_t query_width = int64_t{shape.query_heads} * shape.head_dim;
  const int64_t kv_width = int64_t{shape.kv_heads} * shape.head_dim;
  std::vector<TensorSpec> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> extents) {
    tensors.push_back({name, dtype, std::move(extents)});
  };
  add("model.embed_tokens.weight", {shape.vocab, shape.hidden});
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {shape.hidden});
    const auto projection = [&](const std::string& name, int64_t rows) {
      add(prefix + "self_attn." + name + ".weight", {rows, shape.hidden});
      if (shape.qkv_bias()) add(prefix + "self_attn." + name + ".bias", {rows});
    };
    projection("q_proj", query_width);
    projection("k_proj", kv_width);
    projection("v_proj", kv_width);
    if (shape.qk_norm()) {
      add(prefix + "self_attn.q_norm.weight", {shape.head_dim});
      add(prefix + "self_attn.k_norm.weight", {shape.head_dim});
    }
    add(prefix + "self_attn.o_proj.weight", {shape.hidden, query_width});
    add(prefix + "post_attention_layernorm.weight", {shape.hidden});
    add(prefix + "mlp.gate_proj.weight", {shape.intermediate, shape.hidden});
    add(prefix + "mlp.up_proj.weight", {shape.intermediate, shape.hidden});
    add(prefix + "mlp.down_proj.weight", {shape.hidden, shape.intermediate});
  }
  add("model.norm.weight", {shape.hidden});
  if (!shape.tied_embeddings) add("lm_head.weight", {shape.vocab, shape.hidden});
  return tensors;
}

}  // namespace scd
