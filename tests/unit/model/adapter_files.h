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

// Changes the key and value weights of these layers of the base, by random factors of rank 4 and scale 2.
inline void write_key_value_adapter(const std::filesystem::path& base, const std::filesystem::path& directory,
                                    std::span<const int32_t> layers) {
  const ModelConfig config = ModelConfig::from_directory(base);
  const int64_t width = int64_t{config.kv_heads} * config.head_dim;
  std::mt19937 random(17);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<OwnedTensor> tensors;
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
    std::vector<float> values(static_cast<size_t>(rows * columns));
    for (float& value : values) value = normal(random);
    tensors.push_back(tensor_f32("base_model.model.model.layers." + name + ".weight", {rows, columns}, values));
  };
  for (const int32_t layer : layers) {
    for (const std::string module : {".self_attn.k_proj", ".self_attn.v_proj"}) {
      add(std::to_string(layer) + module + ".lora_A", kAdapterRank, config.hidden);
      add(std::to_string(layer) + module + ".lora_B", width, kAdapterRank);
    }
  }
  std::filesystem::create_directories(directory);
  write_text(directory / "adapter_config.json", R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"})");
  write_tensors(directory / "adapter_model.safetensors", tensors);
}

}  // namespace scd::testing
