// Random checkpoints in Hugging Face form, for tests and benchmarks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/model/model_config.h"

namespace scd {

struct MakeModelOptions {
  std::string shape = "tiny";  // one of model_shapes()
  uint64_t seed = 1;
  std::string dtype = "bfloat16";  // or "float32", "float16"
  std::string family = "llama";    // for tiny shapes: llama, mistral, qwen2, qwen3
  double rope_theta = 10000.0;
  double perturb = 0.0;  // > 0: the weights of `seed` plus noise of this relative size: a "fine-tune" of it
  uint64_t perturb_seed = 0;
  // Written as tokenizer.json where not empty; its vocabulary must fit the shape (this folder knows no tokenizers).
  std::string tokenizer_json = {};
};

std::vector<std::string> model_shapes();  // "tiny", "llama-3.2-1b", "llama-3.1-8b", ...

// Of a shape; throws Error for an unknown one.
int32_t model_shape_vocab(const std::string& shape);
ModelConfig model_shape_config(const std::string& shape);

// Writes config.json, generation_config.json, tokenizer.json where given, and model.safetensors (sharded above 4 GiB).
void make_model(const MakeModelOptions& options, const std::filesystem::path& directory);

}  // namespace scd
