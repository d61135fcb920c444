// A loaded model: configuration and packed weights. Immutable after loading; shared by reference.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/model/model_config.h"
#include "kernels/device.h"
#include "kernels/linear.h"

namespace scd {

struct LayerWeights {
  kernels::DeviceVector attention_norm;     // [hidden]
  kernels::PackedLinear qkv;                // [hidden] -> [(query_heads + 2 kv_heads) * head_dim]: q, then k, then v
  kernels::DeviceVector query_norm;         // [head_dim], empty without qk_norm
  kernels::DeviceVector key_norm;           // [head_dim], empty without qk_norm
  kernels::PackedLinear output;             // [query_heads * head_dim] -> [hidden]
  kernels::DeviceVector feed_forward_norm;  // [hidden]
  kernels::PackedLinear gate_up;            // [hidden] -> [2 intermediate]: gate, then up
  kernels::PackedLinear down;               // [intermediate] -> [hidden]
};

struct LoadOptions {
  std::filesystem::path directory;                              // a Hugging Face checkpoint
  std::optional<std::filesystem::path> adapter = std::nullopt;  // a PEFT LoRA adapter, merged in FP32 and rounded once
  kernels::DType precision = kernels::DType::kBF16;
  kernels::Device device = kernels::Device::kCpu;  // where weights are kept and passes run
  // Rounds RoPE's frequencies to this dtype, as frameworks do that convert a whole module to a half type (PyTorch's
  // model.to(bfloat16)). Only for comparing logits with theirs; FP32 (the default) is what checkpoints are trained
  // with.
  kernels::DType rope_frequencies = kernels::DType::kF32;
  std::function<void(double)> progress = nullptr;  // called with the share loaded, in [0, 1]; may be empty
};

// The linear layers of a model by their names in a checkpoint: what adapters may change.
std::set<std::string> linear_modules(const ModelConfig& config);

class Model {
 public:
  // Memory-maps the checkpoint, merges the adapter, packs every weight once.
  // Errors name the file and the tensor: missing, truncated, wrong dtype, wrong shape, unknown architecture.
  static Model load(const LoadOptions& options);
  // With random weights made where they are kept, for benchmarks; model_shape_config() has configurations.
  static Model made_up(const ModelConfig& config, kernels::DType precision, kernels::Device device);

  const ModelConfig& config() const { return config_; }
  kernels::DType precision() const { return precision_; }
  kernels::Device device() const { return embedding_.device(); }
  const LayerWeights& layer(int32_t index) const { return layers_[static_cast<size_t>(index)]; }
  kernels::ConstMatrix embedding_table() const;  // [vocab, hidden], on device()
  const kernels::DeviceVector& final_norm() const { return final_norm_; }
  const kernels::PackedLinear& lm_head() const { return *lm_head_; }
  size_t weight_bytes() const;  // packed, as held in memory
  int64_t parameters() const;   // weight values a token's forward pass reads

 private:
  Model() = default;
  friend class ModelBuilder;
  ModelConfig config_;
  kernels::DType precision_ = kernels::DType::kBF16;
  kernels::DeviceBuffer embedding_;
  std::vector<LayerWeights> layers_;
  kernels::DeviceVector final_norm_;
  std::unique_ptr<kernels::PackedLinear> lm_head_;
};

}  // namespace scd
