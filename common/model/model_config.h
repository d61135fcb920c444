// What config.json says of a model, in our words; families that differ from what is implemented are refused by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/token.h"
#include "common/kv/kv_cache.h"
#include "kernels/rope.h"

namespace scd {

class JsonFile;

struct ModelConfig {
  std::string family;  // "llama", "mistral", "qwen2", "qwen3"
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t intermediate = 0;
  int32_t query_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab = 0;
  int32_t max_positions = 0;
  float rms_epsilon = 1e-5f;
  int32_t sliding_window = 0;  // 0: none
  // Layers below this index attend fully even when a window is set (Qwen2's max_window_layers); 0: all use the window.
  int32_t first_window_layer = 0;
  bool qkv_bias = false;
  bool output_bias = false;  // attention_bias of Llama: o_proj too
  bool mlp_bias = false;
  bool qk_norm = false;
  bool tied_embeddings = false;
  kernels::RopeTable rope;
  // Canonical JSON of the RoPE settings: what the handshake compares and prints.
  std::string rope_settings;
  // End-of-sequence ids: generation_config.json's list, else config.json's.
  std::vector<TokenId> end_of_sequence;

  // Errors name the file, the field, what it says and what would be right.
  static ModelConfig from_directory(const std::filesystem::path& directory);
  static ModelConfig from_json(const JsonFile& config);  // config.json alone

  KvShape kv_shape(kernels::DType dtype) const { return {layers, kv_heads, head_dim, dtype}; }
  float attention_scale() const;
};

}  // namespace scd
