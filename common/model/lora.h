// LoRA adapters (Hu et al. 2021, arXiv:2106.09685) in PEFT's format: adapter_config.json, adapter_model.safetensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/checkpoint.h"
#include "common/model/json_file.h"
#include "kernels/matrix.h"

namespace scd {

// What an adapter adds to one module: weight [out, in] += scale * B A.
struct LoraFactors {
  int64_t rank = 0;
  float scale = 0.0f;
  std::vector<float> a;  // [rank, in]
  std::vector<float> b;  // [out, rank], unscaled
};

inline constexpr std::string_view kAdapterWeightsFile = "adapter_model.safetensors";

// One adapter, read and checked. What PEFT offers beyond plain LoRA on linear layers (DoRA, biases, modules_to_save,
// embeddings, layer replication, ...) is refused by name.
class LoraAdapter {
 public:
  // Throws Error naming file, field or tensor.
  explicit LoraAdapter(const std::filesystem::path& directory);

  // weight [out, in] += scale * B A in FP32, for the base module `model.layers.0.self_attn.q_proj`; false when the
  // adapter leaves the module as it is. A shape mismatch names the tensor.
  bool merge(const std::string& module, kernels::Matrix weight) const;
  // None when the adapter leaves the module as it is.
  std::optional<LoraFactors> factors(const std::string& module, int64_t out, int64_t in) const;
  bool touches(const std::string& module) const { return factors_.contains(module); }
  // The linear modules of the base: throws Error naming an adapter module that is not among them, or a module that
  // target_modules asks for and that has no tensors.
  void check_modules(const std::set<std::string>& linear_modules) const;

  const Checkpoint& checkpoint() const { return checkpoint_; }
  // Scale and rank of every module: what the fingerprint covers beside the tensors.
  std::string settings() const;

 private:
  struct Factors {
    std::string a, b;  // tensor names
    int64_t rank = 0;
    float scale = 0.0f;
  };
  Checkpoint checkpoint_;
  JsonFile config_;
  std::map<std::string, Factors> factors_;  // by base module
};

}  // namespace scd
