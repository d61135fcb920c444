#include "common/model/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "common/base/error.h"
#include "common/base/file_status.h"
#include "common/model/json_file.h"
#include "common/model/rope_settings.h"

namespace scd {
namespace {

struct Architecture {
  std::string_view name;
  std::string_view family;
};
constexpr std::array<Architecture, 4> kArchitectures{{{"LlamaForCausalLM", "llama"},
                                                      {"MistralForCausalLM", "mistral"},
                                                      {"Qwen2ForCausalLM", "qwen2"},
                                                      {"Qwen3ForCausalLM", "qwen3"}}};
constexpr const char* kExpectedArchitectures =
    "expected LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM";

std::string read_family(const JsonFile& file) {
  if (!file.has("architectures")) {
    const std::string type = file.text("model_type", "");
    for (const auto& known : kArchitectures) {
      if (type == known.family) return type;
    }
    file.refuse(type.empty() ? "architectures" : "model_type", kExpectedArchitectures);
  }
  const auto& names = file.root()["architectures"];
  if (!names.is_array() || names.size() != 1 || !names[0].is_string()) {
    file.refuse("architectures", std::string("expected a list of one; ") + kExpectedArchitectures);
  }
  for (const auto& known : kArchitectures) {
    if (names[0].get<std::string>() == known.name) return std::string(known.family);
  }
  file.refuse("architectures", kExpectedArchitectures);
}

int32_t read_count(const JsonFile& file, const std::string& field, int64_t largest) {
  const int64_t value = file.integer(field);
  if (value < 1 || value > largest) file.refuse(field, "expected 1 to " + std::to_string(largest));
  return static_cast<int32_t>(value);
}

void read_sizes(const JsonFile& file, ModelConfig& config) {
  config.layers = read_count(file, "num_hidden_layers", 1000);
  config.hidden = read_count(file, "hidden_size", 1 << 18);
  config.intermediate = read_count(file, "intermediate_size", 1 << 20);
  config.vocab = read_count(file, "vocab_size", 1 << 24);
  config.max_positions = read_count(file, "max_position_embeddings", 1 << 28);
  config.query_heads = read_count(file, "num_attention_heads", 1 << 12);
  config.kv_heads =
      file.has("num_key_value_heads") ? read_count(file, "num_key_value_heads", 1 << 12) : config.query_heads;
  if (config.query_heads % config.kv_heads != 0) {
    file.refuse("num_key_value_heads",
                "expected a divisor of num_attention_heads (" + std::to_string(config.query_heads) + ")");
  }
  if (file.has("head_dim")) {
    config.head_dim = read_count(file, "head_dim", 1 << 12);
  } else if (config.family == "qwen3" && !file.root().contains("head_dim")) {
    config.head_dim = 128;  // the family's default, not hidden / heads
  } else {
    if (config.hidden % config.query_heads != 0) {
      file.refuse("hidden_size", "expected a multiple of num_attention_heads (" + std::to_string(config.query_heads) +
                                     "), or a field `head_dim`");
    }
    config.head_dim = config.hidden / config.query_heads;
  }
  if (config.head_dim % 2 != 0) file.refuse("head_dim", "expected an even number");
  const double epsilon = file.number("rms_norm_eps", 1e-6);
  if (!(epsilon > 0) || epsilon > 1) file.refuse("rms_norm_eps", "expected a number above 0, at most 1");
  config.rms_epsilon = static_cast<float>(epsilon);
}

void read_biases(const JsonFile& file, ModelConfig& config) {
  const bool attention_bias = file.boolean("attention_bias", false);
  const bool mlp_bias = file.boolean("mlp_bias", false);
  const bool llama = config.family == "llama";
  if (attention_bias && !llama && config.family != "qwen3") {
    file.refuse("attention_bias", "expected false for this architecture");
  }
  if (mlp_bias && !llama) file.refuse("mlp_bias", "expected false for this architecture");
  config.qkv_bias = attention_bias || config.family == "qwen2";
  config.output_bias = attention_bias;
  config.mlp_bias = mlp_bias;
  config.qk_norm = config.family == "qwen3";
}

// `layer_types` as the index of the first windowed layer; only "full ... full, window ... window" exists here.
int32_t first_window_layer(const JsonFile& file, const ModelConfig& config) {
  const auto& types = file.root()["layer_types"];
  if (!types.is_array() || types.size() != static_cast<size_t>(config.layers)) {
    file.refuse("layer_types", "expected a list of " + std::to_string(config.layers) + " layer types");
  }
  int32_t first = config.layers;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    const auto& type = types[static_cast<size_t>(layer)];
    if (type == "sliding_attention") {
      first = std::min(first, layer);
    } else if (type != "full_attention") {
      file.refuse("layer_types", "expected full_attention or sliding_attention");
    } else if (first < layer) {
      file.refuse("layer_types", "full attention above a windowed layer is not supported");
    }
  }
  return first;
}

void read_window(const JsonFile& file, ModelConfig& config) {
  // The defaults of each family where its config says nothing.
  const bool mistral = config.family == "mistral";
  const bool qwen = config.family == "qwen2" || config.family == "qwen3";
  const bool in_use = mistral || (qwen && file.boolean("use_sliding_window", false));
  const bool stated = file.root().contains("sliding_window");
  const int64_t window = stated ? file.integer("sliding_window", 0) : (mistral || qwen ? 4096 : 0);
  if (stated && file.has("sliding_window") && (window < 1 || window > (1 << 28))) {
    file.refuse("sliding_window", "expected null or a positive number of tokens");
  }
  if (config.family == "llama" && window != 0) {
    file.refuse("sliding_window", "expected null: Llama attends to every position");
  }
  int32_t first = 0;
  if (qwen) {
    const int64_t full_layers = file.integer("max_window_layers", 28);
    first = static_cast<int32_t>(std::clamp<int64_t>(full_layers, 0, config.layers));
  }
  const bool windowed = in_use && window != 0;
  if (file.has("layer_types")) {
    const int32_t listed = first_window_layer(file, config);
    if (!qwen && listed != (windowed ? 0 : config.layers)) {
      file.refuse("layer_types", "it contradicts `sliding_window`");
    }
    first = listed;
  }
  if (!windowed || first >= config.layers) return;
  config.sliding_window = static_cast<int32_t>(window);
  config.first_window_layer = first;
}

std::vector<TokenId> read_end_ids(const JsonFile& file, int32_t vocab) {
  std::vector<TokenId> ids;
  if (!file.has("eos_token_id")) return ids;
  const auto& value = file.root()["eos_token_id"];
  const auto add = [&](const auto& id) {
    if (!id.is_number_integer() || id.template get<int64_t>() < 0 || id.template get<int64_t>() >= vocab) {
      file.refuse("eos_token_id", "expected ids below vocab_size (" + std::to_string(vocab) + ")");
    }
    ids.push_back(id.template get<TokenId>());
  };
  if (value.is_array()) {
    for (const auto& id : value) add(id);
  } else {
    add(value);
  }
  return ids;
}

// What would change the arithmetic and is not implemented.
void refuse_unsupported(const JsonFile& file) {
  const std::string activation = file.text("hidden_act", "silu");
  if (activation != "silu") file.refuse("hidden_act", "expected silu");
  if (file.has("quantization_config")) {
    file.refuse("quantization_config", "quantised checkpoints are not supported; expected BF16, F16 or F32 weights");
  }
  for (const char* field : {"dtype", "torch_dtype"}) {
    const std::string dtype = file.text(field, "bfloat16");
    if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32" && dtype != "auto") {
      file.refuse(field, "expected bfloat16, float16 or float32");
    }
  }
}

ModelConfig without_end_ids(const JsonFile& file) {
  ModelConfig config;
  config.family = read_family(file);
  refuse_unsupported(file);
  read_sizes(file, config);
  read_biases(file, config);
  read_window(file, config);
  config.tied_embeddings = file.boolean("tie_word_embeddings", false);
  auto rope = read_rope_settings(file, config.head_dim);
  config.rope = std::move(rope.table);
  config.rope_settings = std::move(rope.canonical);
  return config;
}

}  // namespace

ModelConfig ModelConfig::from_json(const JsonFile& config) {
  ModelConfig read = without_end_ids(config);
  read.end_of_sequence = read_end_ids(config, read.vocab);
  return read;
}

ModelConfig ModelConfig::from_directory(const std::filesystem::path& directory) {
  const JsonFile file(directory / "config.json");
  ModelConfig config = without_end_ids(file);
  const auto generation = directory / "generation_config.json";
  if (path_exists(generation)) config.end_of_sequence = read_end_ids(JsonFile(generation), config.vocab);
  if (config.end_of_sequence.empty()) config.end_of_sequence = read_end_ids(file, config.vocab);
  return config;
}

float ModelConfig::attention_scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

}  // namespace scd
