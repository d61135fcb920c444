// Models that compute what another one does in another shape: pairs whose caches differ in depth or width and of which
// each is known to the last bit but rounding.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/model/safetensors.h"
#include "common/model/safetensors_writer.h"

namespace scd::testing {

struct Derivation {
  // Before each layer one that adds nothing to the residual stream and has the keys and values of the layer itself.
  bool twice_as_deep = false;
  // A residual stream twice as wide, its second half zero, and each KV head twice.
  bool twice_as_wide = false;
};

class DerivedModel {
 public:
  // `from`: a checkpoint of F32 in one file, llama family.
  DerivedModel(const std::filesystem::path& from, Derivation derivation)
      : file_(from / "model.safetensors"),
        config_(nlohmann::ordered_json::parse(std::ifstream(from / "config.json"))),
        derivation_(derivation),
        head_dim_(config_["head_dim"].get<int64_t>()) {}

  void write(const std::filesystem::path& directory) {
    std::filesystem::create_directories(directory);
    const int layers = config_["num_hidden_layers"].get<int>();
    add("model.embed_tokens.weight", "model.embed_tokens.weight", false);
    for (int layer = 0; layer < layers; ++layer) {
      if (derivation_.twice_as_deep) add_layer(2 * layer, layer, true);
      add_layer(derivation_.twice_as_deep ? 2 * layer + 1 : layer, layer, false);
    }
    add("model.norm.weight", "model.norm.weight", false);
    add("lm_head.weight", "lm_head.weight", false);
    SafetensorsWriter writer(directory / "model.safetensors", specs_);
    for (const std::vector<float>& values : values_) writer.write(std::as_bytes(std::span(values)));
    writer.finish();
    if (derivation_.twice_as_deep) config_["num_hidden_layers"] = 2 * layers;
    if (derivation_.twice_as_wide) {
      config_["hidden_size"] = 2 * config_["hidden_size"].get<int>();
      config_["num_key_value_heads"] = 2 * config_["num_key_value_heads"].get<int>();
      config_["rms_norm_eps"] = config_["rms_norm_eps"].get<double>() / 2;  // the mean square is half
    }
    std::ofstream(directory / "config.json") << config_.dump(2) << "\n";
  }

 private:
  void add_layer(int number, int from, bool idle) {
    for (const char* name :
         {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      const std::string part = "." + std::string(name) + ".weight";
      const bool output = part.find("o_proj") != std::string::npos || part.find("down_proj") != std::string::npos;
      add("model.layers." + std::to_string(number) + part, "model.layers." + std::to_string(from) + part,
          idle && output);
    }
  }

  void add(const std::string& name, const std::string& from, bool zero) {
    const StoredTensor& stored = file_.tensors().at(from);
    std::vector<int64_t> shape = stored.shape;
    std::vector<float> values(stored.bytes.size() / sizeof(float));
    std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
    if (zero) std::ranges::fill(values, 0.0f);
    if (derivation_.twice_as_wide) widen(name, shape, values);
    specs_.push_back({name, kernels::DType::kF32, shape});
    values_.push_back(std::move(values));
  }

  void widen(const std::string& name, std::vector<int64_t>& shape, std::vector<float>& values) const {
    const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
    if (has("norm")) {  // over twice the width the root mean square is 1 / sqrt(2) of what it was
      for (float& value : values) value /= std::sqrt(2.0f);
      values.resize(2 * values.size());
      shape[0] *= 2;
      return;
    }
    if (has("o_proj") || has("down_proj")) {
      values.resize(2 * values.size());
      shape[0] *= 2;
      return;
    }
    const bool twice = has("k_proj") || has("v_proj");
    std::vector<float> wide;
    for (int64_t row = 0; row < (twice ? 2 * shape[0] : shape[0]); ++row) {
      const int64_t source = twice ? row / head_dim_ / 2 * head_dim_ + row % head_dim_ : row;
      const auto begin = values.begin() + source * shape[1];
      wide.insert(wide.end(), begin, begin + shape[1]);
      wide.resize(wide.size() + static_cast<size_t>(shape[1]));
    }
    shape = {twice ? 2 * shape[0] : shape[0], 2 * shape[1]};
    values = std::move(wide);
  }

  SafetensorsFile file_;
  nlohmann::ordered_json config_;
  Derivation derivation_;
  int64_t head_dim_;
  std::vector<TensorSpec> specs_;
  std::vector<std::vector<float>> values_;
};

}  // namespace scd::testing
