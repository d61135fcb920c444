#include "common/model/make_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/half.h"
#include "common/model/json_file.h"
#include "common/model/model_shapes.h"

namespace scd {
namespace {

using kernels::DType;

constexpr uint64_t kShardBytes = uint64_t{4} << 30;
constexpr int64_t kBlockElements = 1 << 22;  // generated in parallel, then written

struct StoredType {
  DType dtype;
  std::string_view name;
};

DType dtype_named(const std::string& name) {
  for (const auto& [dtype, spelled] :
       {StoredType{DType::kBF16, "bfloat16"}, StoredType{DType::kF32, "float32"}, StoredType{DType::kF16, "float16"}}) {
    if (name == spelled) return dtype;
  }
  throw Error(ErrorCode::kInvalidArgument, "dtype `" + name + "`: expected bfloat16, float16 or float32");
}

const ModelShape& shape_named(const std::string& name) {
  const auto& shapes = known_shapes();
  const auto found = std::ranges::find(shapes, name, &ModelShape::name);
  if (found != shapes.end()) return *found;
  std::string names;
  for (const auto& shape : shapes) names += (names.empty() ? "" : ", ") + shape.name;
  throw Error(ErrorCode::kInvalidArgument, "shape `" + name + "`: expected one of " + names);
}

ModelShape chosen_shape(const MakeModelOptions& options) {
  ModelShape shape = shape_named(options.shape);
  if (shape.name != "tiny" && shape.name != "small") return shape;
  constexpr std::array families{"llama", "mistral", "qwen2", "qwen3"};
  if (std::ranges::find(families, options.family) == families.end()) {
    throw Error(ErrorCode::kInvalidArgument,
                "family `" + options.family + "`: expected llama, mistral, qwen2 or qwen3");
  }
  shape.family = options.family;
  shape.rope_theta = options.rope_theta;
  return shape;
}

// SplitMix64's finaliser (Steele et al. 2014): the counter is hashed, so any element is drawn on its own.
constexpr uint64_t mix(uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

// Mean 0, variance 1: the sum of four uniforms, which is close enough to a normal and needs no logarithm.
float normal(uint64_t stream, uint64_t index) {
  const uint64_t bits = mix(stream ^ mix(index));
  const auto sum =
      static_cast<float>((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48));
  constexpr float kMean = 2.0f * 65535.0f;
  constexpr float kDeviation = 37836.5f;  // sqrt(4 / 12) of 65536
  return (sum - kMean) / kDeviation;
}

void store(float value, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) {
    std::copy_n(reinterpret_cast<const std::byte*>(&value), 4, to);
    return;
  }
  const uint16_t half = dtype == DType::kBF16 ? kernels::to_bfloat16(value).bits : to_half(value);
  std::copy_n(reinterpret_cast<const std::byte*>(&half), 2, to);
}

// value = mean + deviation * normal.
struct Distribution {
  float mean = 0.0f;
  float deviation = 0.0f;
};

// Projections of a unit-variance input have unit variance; the branches add to the residual stream about as much as
// the embedding put there, so that logits are sane (a standard deviation of about 2) at any depth.
Distribution distribution_of(const TensorSpec& tensor, const ModelShape& shape) {
  const std::string& name = tensor.name;
  if (name == "model.norm.weight") return {2.0f, 0.1f};
  if (name.ends_with("norm.weight")) return {1.0f, 0.1f};
  if (name.ends_with(".bias")) return {0.0f, 0.1f};
  const float unit = 1.0f / std::sqrt(static_cast<float>(tensor.shape[1]));
  if (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")) {
    const float embedding = 1.0f / std::sqrt(static_cast<float>(shape.hidden));
    return {0.0f, unit * embedding * 2.0f / std::sqrt(2.0f * static_cast<float>(shape.layers))};
  }
  return {0.0f, unit};
}

class TensorGenerator {
 public:
  TensorGenerator(const MakeModelOptions& options, const ModelShape& shape) : options_(options), shape_(shape) {}

  void write(const TensorSpec& tensor, uint64_t number, SafetensorsWriter& writer) {
    const Distribution distribution = distribution_of(tensor, shape_);
    const uint64_t stream = mix(options_.seed * 0x100000001B3u + number);
    const uint64_t noise_stream = mix(mix(options_.perturb_seed + 0x5CD5CD5CDu) + number);
    const auto noise = static_cast<float>(options_.perturb) * distribution.deviation;
    const size_t size = kernels::size_of(tensor.dtype);
    const int64_t elements = tensor.elements();
    for (int64_t first = 0; first < elements; first += kBlockElements) {
      const int64_t count = std::min(kBlockElements, elements - first);
      block_.resize(static_cast<size_t>(count) * size);
#pragma omp parallel for schedule(static)
      for (int64_t i = 0; i < count; ++i) {
        const auto index = static_cast<uint64_t>(first + i);
        float value = distribution.mean + distribution.deviation * normal(stream, index);
        if (noise > 0) value += noise * normal(noise_stream, index);
        store(value, tensor.dtype, block_.data() + static_cast<size_t>(i) * size);
      }
      writer.write(block_);
    }
  }

 private:
  const MakeModelOptions& options_;
  const ModelShape& shape_;
  std::vector<std::byte> block_;
};

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  if (!out.flush()) throw Error(ErrorCode::kUnavailable, path.string() + ": cannot write");
}

nlohmann::ordered_json config_json(const ModelShape& shape, const std::string& dtype) {
  const std::string architecture = shape.family == "llama"     ? "LlamaForCausalLM"
                                   : shape.family == "mistral" ? "MistralForCausalLM"
                                   : shape.family == "qwen2"   ? "Qwen2ForCausalLM"
                                                               : "Qwen3ForCausalLM";
  nlohmann::ordered_json config{{"architectures", {architecture}},
                                {"model_type", shape.family},
                                {"torch_dtype", dtype},
                                {"hidden_act", "silu"},
                                {"hidden_size", shape.hidden},
                                {"intermediate_size", shape.intermediate},
                                {"num_hidden_layers", shape.layers},
                                {"num_attention_heads", shape.query_heads},
                                {"num_key_value_heads", shape.kv_heads},
                                {"head_dim", shape.head_dim},
                                {"vocab_size", shape.vocab},
                                {"max_position_embeddings", shape.max_positions},
                                {"rms_norm_eps", shape.rms_epsilon},
                                {"rope_theta", shape.rope_theta},
                                {"rope_scaling", nullptr},
                                {"sliding_window", nullptr},
                                {"tie_word_embeddings", shape.tied_embeddings},
                                {"bos_token_id", 1},
                                {"eos_token_id", 2}};
  if (shape.llama3_rope) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 32.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 8192}};
  }
  return config;
}

// Consecutive tensors up to the shard size; one file where everything fits.
std::vector<std::vector<TensorSpec>> shards_of(std::vector<TensorSpec> tensors) {
  std::vector<std::vector<TensorSpec>> shards(1);
  uint64_t bytes = 0;
  for (TensorSpec& tensor : tensors) {
    if (bytes > 0 && bytes + tensor.bytes() > kShardBytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += tensor.bytes();
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  const auto five_digits = [](size_t value) {
    const std::string digits = std::to_string(value);
    return std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
  };
  return "model-" + five_digits(index + 1) + "-of-" + five_digits(count) + ".safetensors";
}

}  // namespace

std::vector<std::string> model_shapes() {
  std::vector<std::string> names;
  for (const auto& shape : known_shapes()) names.push_back(shape.name);
  return names;
}

int32_t model_shape_vocab(const std::string& shape) { return shape_named(shape).vocab; }

ModelConfig model_shape_config(const std::string& shape) {
  return ModelConfig::from_json(JsonFile(shape, config_json(shape_named(shape), "bfloat16").dump()));
}

void make_model(const MakeModelOptions& options, const std::filesystem::path& directory) {
  const ModelShape shape = chosen_shape(options);
  const DType dtype = dtype_named(options.dtype);
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) throw Error(ErrorCode::kUnavailable, directory.string() + ": cannot create: " + failed.message());

  const auto shards = shards_of(tensors_of(shape, dtype));
  TensorGenerator generator(options, shape);
  nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
  uint64_t number = 0;
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    SafetensorsWriter writer(directory / name, shards[i]);
    for (const TensorSpec& tensor : shards[i]) {
      generator.write(tensor, number++, writer);
      weight_map[tensor.name] = name;
      total += tensor.bytes();
    }
    writer.finish();
  }
  if (shards.size() > 1) {
    const nlohmann::ordered_json index{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
    write_text(directory / "model.safetensors.index.json", index.dump(2) + "\n");
  }
  write_text(directory / "generation_config.json",
             nlohmann::ordered_json{{"bos_token_id", 1}, {"eos_token_id", 2}}.dump(2) + "\n");
  if (!options.tokenizer_json.empty()) write_text(directory / "tokenizer.json", options.tokenizer_json);
  write_text(directory / "config.json", config_json(shape, options.dtype).dump(2) + "\n");
}

}  // namespace scd
