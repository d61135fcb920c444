#include "common/model/model.h"

#include <string>

namespace scd {

std::set<std::string> linear_modules(const ModelConfig& config) {
  std::set<std::string> names;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      names.insert(prefix + name);
    }
  }
  if (!config.tied_embeddings) names.insert("lm_head");
  return names;
}

kernels::ConstMatrix Model::embedding_table() const {
  return {embedding_.data(), config_.vocab, config_.hidden, config_.hidden, precision_, device()};
}

size_t Model::weight_bytes() const {
  const bool shared = config_.tied_embeddings && device() == kernels::Device::kGpu;  // by the embeddings and the head
  size_t bytes = lm_head_->packed_bytes() + (shared ? 0 : embedding_.size()) + final_norm_.size() * sizeof(float);
  for (const LayerWeights& layer : layers_) {
    bytes += layer.qkv.packed_bytes() + layer.output.packed_bytes() + layer.gate_up.packed_bytes() +
             layer.down.packed_bytes();
    bytes += (layer.attention_norm.size() + layer.feed_forward_norm.size()) * sizeof(float);
  }
  return bytes;
}

int64_t Model::parameters() const {
  const auto values = [](const kernels::PackedLinear& linear) { return linear.in_features() * linear.out_features(); };
  int64_t count = values(*lm_head_) + int64_t{config_.hidden} * 2;  // the head, one embedding row, the last norm
  for (const LayerWeights& layer : layers_) {
    count += values(layer.qkv) + values(layer.output) + values(layer.gate_up) + values(layer.down);
    count += static_cast<int64_t>(layer.attention_norm.size() + layer.feed_forward_norm.size() +
                                  layer.query_norm.size() + layer.key_norm.size());
  }
  return count;
}

}  // namespace scd
