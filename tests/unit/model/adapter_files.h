// LoRA adapters on disk for tests.
#pragma once

#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "common/model/model_config.h"
#include "tests/unit/model/model_files.h"

namespace scd::testing {

inline constexpr int64_t kAdapterRank = 4;

inline OwnedTensor random_factor(const std::string& name, int64_t rows, int64_t columns, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (float& value : values) value = normal(random);
  return tensor_f32("base_model.model.model.layers." + name + ".weight", {rows, columns}, values);
}

inline void write_adapter_of(std::span<const OwnedTensor> tensors, const std::filesystem::path& directory) {
  std::filesystem::create_directories(directory);
  write_text(directory / "adapter_config.json", R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"})");
  write_tensors(directory / "adapter_model.safetensors", {tensors.begin(), tensors.end()});
}

// Changes every linear layer of the base's layers; other seeds, other adapters.
inline void write_adapter(const std::filesystem::path& base, const std::filesystem::path& directory, uint32_t seed) {
  const ModelConfig config = ModelConfig::from_directory(base);
  const int64_t query = int64_t{config.query_heads} * config.head_dim, kv = int64_t{config.kv_heads} * config.head_dim;
  struct Linear {
    const char* name;
    int64_t in, out;
  };
  const Linear linears[] = {{".self_attn.q_proj", config.hidden, query},
                            {".self_attn.k_proj", config.hidden, kv},
                            {".self_attn.v_proj", config.hidden, kv},
                            {".self_attn.o_proj", query, config.hidden},
                            {".mlp.gate_proj", config.hidden, config.intermediate},
                            {".mlp.up_proj", config.hidden, config.intermediate},
                            {".mlp.down_proj", config.intermediate, config.hidden}};
  std::mt19937 random(seed);
  std::vector<OwnedTensor> tensors;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (const Linear& linear : linears) {
      const std::string module = std::to_string(layer) + linear.name;
      tensors.push_back(random_factor(module + ".lora_A", kAdapterRank, linear.in, random));
      tensors.push_back(random_factor(module + ".lora_B", linear.out, kAdapterRank, random));
    }
  }
  write_adapter_of(tensors, directory);
}

// Changes the key and value weights of these layers of the base, by random factors of rank 4 and scale 2.
inline void write_key_value_adapter(const std::filesystem::path& base, const std::filesystem::path& directory,
                                    std::span<const int32_t> layers) {
  const ModelConfig config = ModelConfig::from_directory(base);
  const int64_t width = int64_t{config.kv_heads} * config.head_dim;
  std::mt19937 random(17);
  std::vector<OwnedTensor> tensors;
  for (const int32_t layer : layers) {
    for (const std::string module : {".self_attn.k_proj", ".self_attn.v_proj"}) {
      tensors.push_back(random_factor(std::to_string(layer) + module + ".lora_A", kAdapterRank, config.hidden, random));
      tensors.push_back(random_factor(std::to_string(layer) + module + ".lora_B", width, kAdapterRank, random));
    }
  }
  write_adapter_of(tensors, directory);
}

}  // namespace scd::testing
