#include "common/model/model_builder.h"

#include <array>
#include <memory>
#include <utility>

#include "common/base/check.h"

namespace scd {
namespace {

// What the weights take on a GPU: the sizes of their buffers as ModelBuilder makes them.
size_t arena_bytes(const ModelConfig& config, kernels::DType precision) {
  const int64_t hidden = config.hidden, inner = config.intermediate, vocab = config.vocab;
  const int64_t query = int64_t{config.query_heads} * config.head_dim;
  const int64_t kv = int64_t{config.kv_heads} * config.head_dim;
  std::vector<size_t> sizes;
  const auto linear = [&](int64_t in, int64_t out, bool bias) {
    const auto taken = kernels::PackedLinear::buffer_sizes(in, out, bias, precision);
    sizes.insert(sizes.end(), taken.begin(), taken.end());
  };
  const auto vector = [&](int64_t size) { sizes.push_back(static_cast<size_t>(size) * sizeof(float)); };
  linear(hidden, vocab, false);  // the embeddings
  if (!config.tied_embeddings) linear(hidden, vocab, false);
  vector(hidden);
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    linear(hidden, query + 2 * kv, config.qkv_bias);
    linear(query, hidden, config.output_bias);
    linear(hidden, 2 * inner, config.mlp_bias);
    linear(inner, hidden, config.mlp_bias);
    vector(hidden);
    vector(hidden);
    if (config.qk_norm) vector(config.head_dim);
    if (config.qk_norm) vector(config.head_dim);
  }
  return kernels::Placement::arena_bytes(sizes);
}

}  // namespace

Model ModelBuilder::build(ModelConfig config) {
  Model model;
  model.config_ = std::move(config);
  model.precision_ = precision_;
  if (device() == kernels::Device::kGpu) {
    placement_ = kernels::Placement::arena(device(), arena_bytes(model.config_, precision_));
  }
  build_embeddings(model);
  for (int32_t index = 0; index < model.config_.layers; ++index) {
    model.layers_.push_back(layer(model.config_, "model.layers." + std::to_string(index) + "."));
  }
  model.final_norm_ = device_vector("model.norm.weight", model.config_.hidden);
  SCD_CHECK(placement_.left() == 0, "the weights' arena is larger than they are");
  return model;
}

LayerWeights ModelBuilder::layer(const ModelConfig& config, const std::string& prefix) {
  const int64_t query_width = int64_t{config.query_heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_dim;
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const std::array qkv{Part{attention + "q_proj", query_width}, Part{attention + "k_proj", kv_width},
                       Part{attention + "v_proj", kv_width}};
  const std::array output{Part{attention + "o_proj", config.hidden}};
  const std::array gate_up{Part{mlp + "gate_proj", config.intermediate}, Part{mlp + "up_proj", config.intermediate}};
  const std::array down{Part{mlp + "down_proj", config.hidden}};
  kernels::DeviceVector query_norm, key_norm;
  if (config.qk_norm) {
    query_norm = device_vector(attention + "q_norm.weight", config.head_dim);
    key_norm = device_vector(attention + "k_norm.weight", config.head_dim);
  }
  return {.attention_norm = device_vector(prefix + "input_layernorm.weight", config.hidden),
          .qkv = linear({qkv, config.hidden, config.qkv_bias}),
          .query_norm = std::move(query_norm),
          .key_norm = std::move(key_norm),
          .output = linear({output, query_width, config.output_bias}),
          .feed_forward_norm = device_vector(prefix + "post_attention_layernorm.weight", config.hidden),
          .gate_up = linear({gate_up, config.hidden, config.mlp_bias}),
          .down = linear({down, config.intermediate, config.mlp_bias})};
}

void ModelBuilder::build_embeddings(Model& model) {
  const int64_t vocab = model.config_.vocab, hidden = model.config_.hidden;
  const size_t bytes = static_cast<size_t>(vocab * hidden) * kernels::size_of(precision_);
  model.embedding_ = kernels::DeviceBuffer(placement_, bytes);
  fill_embeddings({model.embedding_.data(), vocab, hidden, hidden, precision_, device()});
  if (model.config_.tied_embeddings && device() == kernels::Device::kGpu) {
    model.lm_head_ = std::make_unique<kernels::PackedLinear>(
        kernels::PackedLinear::over(model.embedding_.shared(), vocab, hidden, precision_));
    return;
  }
  const std::array head{Part{head_module(), vocab}};
  model.lm_head_ = std::make_unique<kernels::PackedLinear>(linear({head, hidden, false}));
}

}  // namespace scd
