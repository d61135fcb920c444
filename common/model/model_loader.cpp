// A model from a checkpoint.
#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <span>

#include "common/base/error.h"
#include "common/base/half.h"
#include "common/model/checkpoint.h"
#include "common/model/lora.h"
#include "common/model/model_builder.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/number.h"

namespace scd {
namespace {

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

class ModelLoader final : public ModelBuilder {
 public:
  explicit ModelLoader(const LoadOptions& options)
      : ModelBuilder(options.precision, options.device), options_(options), checkpoint_(options.directory) {
    if (options.adapter) adapter_.emplace(*options.adapter);
    for (const auto& [name, entry] : checkpoint_.tensors()) total_bytes_ += entry.tensor->bytes.size();
  }

  Model load() {
    ModelConfig config = ModelConfig::from_directory(options_.directory);
    round_frequencies(config.rope.inverse_frequencies, options_.rope_frequencies);
    if (adapter_) adapter_->check_modules(linear_modules(config));
    find_embeddings(config.tied_embeddings);
    Model model = build(std::move(config));
    check_all_used();
    if (options_.progress) options_.progress(1.0);
    return model;
  }

 private:
  // Tied embeddings are stored under either name, or twice with the same bytes.
  void find_embeddings(bool tied) {
    embedding_ = "model.embed_tokens.weight";
    head_ = "lm_head.weight";
    if (!tied) return;
    if (checkpoint_.has(embedding_) && checkpoint_.has(head_)) check_same_bytes(embedding_, head_);
    if (!checkpoint_.has(embedding_) && checkpoint_.has(head_)) embedding_ = head_;
    head_ = embedding_;
  }

  std::string head_module() const override { return head_.substr(0, head_.size() - std::strlen(".weight")); }

  void fill_embeddings(const kernels::Matrix& table) override {
    const auto stored = matrix(embedding_, table.rows, table.columns);
    if (device() == kernels::Device::kCpu) return place(stored, table, 0);
    const auto staged = staging_.matrix(table.rows, table.columns, table.dtype);
    place(stored, staged, 0);
    kernels::copy(staged, table);
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
  kernels::PackedLinear linear(const LinearSpec& spec) override {
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
    kernels::PackedLinear linear(weight, bias, precision(), placement());
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

  std::vector<float> vector(const std::string& name, int64_t size) override {
    used_.insert(name);
    return checkpoint_.vector(name, size);
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
  std::string embedding_;  // the tensor
  std::string head_;
  std::optional<LoraAdapter> adapter_;
  kernels::GrowBuffer staging_;  // a fused weight before it is packed
  std::set<std::string> used_;
  size_t total_bytes_ = 0;
  size_t loaded_bytes_ = 0;
};

}  // namespace

Model Model::load(const LoadOptions& options) { return ModelLoader(options).load(); }

}  // namespace scd
