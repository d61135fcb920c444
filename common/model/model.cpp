#include "common/model/model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <span>

#include "common/base/check.h"
#include "common/base/error.h"
#include "common/base/half.h"
#include "common/model/checkpoint.h"
#include "common/model/lora.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/number.h"

namespace scd {
namespace {

// A part of a fused weight: rows of its own below the part before it.
struct Part {
  std::string module;
  int64_t out_features = 0;
};

// One fused weight, [sum of out_features, in_features].
struct LinearSpec {
  std::span<const Part> parts;
  int64_t in_features = 0;
  bool bias = false;
};

bool aligned(const kernels::ConstMatrix& matrix) {
  return reinterpret_cast<uintptr_t>(matrix.data) % kernels::size_of(matrix.dtype) == 0;
}

// By all cores: the pages of a checkpoint are mapped as they are read.
void copy_bytes(const std::byte* from, std::byte* to, size_t bytes) {
  constexpr size_t kPiece = size_t{1} << 20;
#pragma omp parallel for schedule(static)
  for (size_t begin = 0; begin < bytes; begin += kPiece) {
    std::memcpy(to + begin, from + begin, std::min(kPiece, bytes - begin));
  }
}

// Rows [first, first + part.rows) of `whole` become `part`, converted where the dtypes differ.
void place(kernels::ConstMatrix part, const kernels::Matrix& whole, int64_t first) {
  const size_t row_bytes = static_cast<size_t>(whole.columns) * kernels::size_of(whole.dtype);
  auto* to = static_cast<std::byte*>(whole.data) + static_cast<size_t>(first) * row_bytes;
  if (part.dtype == whole.dtype) {
    return copy_bytes(static_cast<const std::byte*>(part.data), to, static_cast<size_t>(part.rows) * row_bytes);
  }
  std::vector<std::byte> copy;
  if (!aligned(part)) {
    const auto* begin = static_cast<const std::byte*>(part.data);
    copy.assign(begin, begin + static_cast<size_t>(part.rows * part.columns) * kernels::size_of(part.dtype));
    part.data = copy.data();
  }
  kernels::convert(part, {to, part.rows, whole.columns, whole.columns, whole.dtype});
}

void round_frequencies(std::vector<float>& frequencies, kernels::DType dtype) {
  for (float& frequency : frequencies) {
    if (dtype == kernels::DType::kBF16) frequency = kernels::to_float(kernels::to_bfloat16(frequency));
    if (dtype == kernels::DType::kF16) frequency = kernels::f16_to_float(to_half(frequency));
  }
}

}  // namespace

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

// What the weights take on a GPU: the sizes of their buffers as ModelLoader makes them.
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

class ModelLoader {
 public:
  explicit ModelLoader(const LoadOptions& options)
      : options_(options), checkpoint_(options.directory), placement_(options.device) {
    if (options.adapter) adapter_.emplace(*options.adapter);
    for (const auto& [name, entry] : checkpoint_.tensors()) total_bytes_ += entry.tensor->bytes.size();
  }

  Model load() {
    Model model;
    model.config_ = ModelConfig::from_directory(options_.directory);
    model.precision_ = options_.precision;
    round_frequencies(model.config_.rope.inverse_frequencies, options_.rope_frequencies);
    if (adapter_) adapter_->check_modules(linear_modules(model.config_));
    if (options_.device == kernels::Device::kGpu) {  // whether there is room shows before anything is read
      placement_ = kernels::Placement::arena(options_.device, arena_bytes(model.config_, options_.precision));
    }
    load_embeddings(model);
    for (int32_t layer = 0; layer < model.config_.layers; ++layer) {
      model.layers_.push_back(load_layer(model.config_, "model.layers." + std::to_string(layer) + "."));
    }
    model.final_norm_ = device_vector("model.norm.weight", model.config_.hidden);
    check_all_used();
    SCD_CHECK(placement_.left() == 0, "the weights' arena is larger than they are");
    if (options_.progress) options_.progress(1.0);
    return model;
  }

 private:
  LayerWeights load_layer(const ModelConfig& config, const std::string& prefix) {
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

  // Tied embeddings are stored under either name, or twice with the same bytes.
  void load_embeddings(Model& model) {
    const std::string embedding = "model.embed_tokens.weight";
    const std::string head = "lm_head.weight";
    const auto& config = model.config_;
    const bool tied = config.tied_embeddings;
    const std::string& embedding_source =
        tied && !checkpoint_.has(embedding) && checkpoint_.has(head) ? head : embedding;
    const auto table = matrix(embedding_source, config.vocab, config.hidden);
    if (tied && embedding_source == embedding && checkpoint_.has(head)) check_same_bytes(embedding, head);
    const size_t bytes = static_cast<size_t>(table.rows * table.columns) * kernels::size_of(options_.precision);
    model.embedding_ = kernels::DeviceBuffer(placement_, bytes);
    const kernels::Matrix kept{model.embedding_.data(), table.rows,         table.columns,
                               table.columns,           options_.precision, options_.device};
    if (options_.device == kernels::Device::kCpu) {
      place(table, kept, 0);
    } else {
      const auto staged = staging_.matrix(table.rows, table.columns, options_.precision);
      place(table, staged, 0);
      kernels::copy(staged, kept);
      if (tied) {
        model.lm_head_ = std::make_unique<kernels::PackedLinear>(
            kernels::PackedLinear::over(model.embedding_.shared(), config.vocab, config.hidden, options_.precision));
        return;
      }
    }
    const std::string& head_source = tied ? embedding_source : head;
    const std::array part{Part{head_source.substr(0, head_source.size() - std::strlen(".weight")), config.vocab}};
    model.lm_head_ = std::make_unique<kernels::PackedLinear>(linear({part, config.hidden, false}));
  }

  void check_same_bytes(const std::string& first, const std::string& second) {
    used_.insert(second);
    if (!std::ranges::equal(checkpoint_.tensors().at(first).tensor->bytes,
                            checkpoint_.tensors().at(second).tensor->bytes)) {
      throw Error(ErrorCode::kInvalidArgument, checkpoint_.directory().string() + ": tensor `" + second +
                                                   "` differs from `" + first +
                                                   "`, yet config.json says tie_word_embeddings");
    }
  }

  // One stored dtype throughout and no adapter: the stored values. Else assembled in FP32, so that packing rounds once.
  kernels::PackedLinear linear(const LinearSpec& spec) {
    int64_t rows = 0;
    bool uniform = true;
    std::vector<kernels::ConstMatrix> stored;
    for (const Part& part : spec.parts) {
      stored.push_back(matrix(part.module + ".weight", part.out_features, spec.in_features));
      rows += part.out_features;
      uniform = uniform && stored.back().dtype == stored[0].dtype && !(adapter_ && adapter_->touches(part.module));
    }
    const std::vector<float> bias = spec.bias ? biases(spec) : std::vector<float>{};
    if (uniform && stored.size() == 1 && aligned(stored[0])) {
      return packed(stored[0], bias);
    }
    const auto whole = staging_.matrix(rows, spec.in_features, uniform ? stored[0].dtype : kernels::DType::kF32);
    int64_t first = 0;
    for (size_t i = 0; i < stored.size(); ++i) {
      place(stored[i], whole, first);
      if (adapter_ && adapter_->touches(spec.parts[i].module)) {
        adapter_->merge(spec.parts[i].module, {whole.row<float>(first), stored[i].rows, whole.columns, whole.columns});
      }
      first += stored[i].rows;
    }
    return packed(whole, bias);
  }

  kernels::PackedLinear packed(const kernels::ConstMatrix& weight, std::span<const float> bias) const {
    kernels::PackedLinear linear(weight, bias, options_.precision, placement_);
    if (options_.progress) options_.progress(std::min(1.0, loaded_share()));
    return linear;
  }

  std::vector<float> biases(const LinearSpec& spec) {
    std::vector<float> all;
    for (const Part& part : spec.parts) {
      const auto one = vector(part.module + ".bias", part.out_features);
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }

  kernels::ConstMatrix matrix(const std::string& name, int64_t rows, int64_t columns) {
    const auto found = checkpoint_.matrix(name, rows, columns);
    if (used_.insert(name).second) loaded_bytes_ += checkpoint_.tensors().at(name).tensor->bytes.size();
    return found;
  }

  std::vector<float> vector(const std::string& name, int64_t size) {
    used_.insert(name);
    return checkpoint_.vector(name, size);
  }

  kernels::DeviceVector device_vector(const std::string& name, int64_t size) {
    return {vector(name, size), placement_};
  }

  double loaded_share() const {
    return total_bytes_ == 0 ? 1.0 : static_cast<double>(loaded_bytes_) / static_cast<double>(total_bytes_);
  }

  // A tensor nobody reads means that the architecture is not what config.json says.
  void check_all_used() const {
    for (const auto& [name, entry] : checkpoint_.tensors()) {
      if (used_.contains(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
      throw Error(ErrorCode::kInvalidArgument, checkpoint_.file_of(entry).string() + ": tensor `" + name +
                                                   "` does not belong to the architecture that config.json describes");
    }
  }

  const LoadOptions& options_;
  Checkpoint checkpoint_;
  std::optional<LoraAdapter> adapter_;
  kernels::Placement placement_;  // of the weights
  kernels::GrowBuffer staging_;   // a fused weight before it is packed
  std::set<std::string> used_;
  size_t total_bytes_ = 0;
  size_t loaded_bytes_ = 0;
};

Model Model::load(const LoadOptions& options) { return ModelLoader(options).load(); }

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
