// A model with random weights, made where they are kept.
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/model/model_builder.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"

namespace scd {
namespace {

class ModelMaker final : public ModelBuilder {
 public:
  ModelMaker(const ModelConfig& config, kernels::DType precision, kernels::Device device)
      : ModelBuilder(precision, device),
        hidden_(config.hidden),
        layers_(config.layers),
        head_(config.tied_embeddings ? kEmbeddings : "lm_head") {}

 private:
  // Scaled as make_model() scales them: branches add to the residual stream about as much as embeddings put there.
  float deviation_of(const std::string& module, int64_t in_features) const {
    const float unit = 1.0f / std::sqrt(static_cast<float>(in_features));
    if (!module.ends_with("o_proj") && !module.ends_with("down_proj")) return unit;
    return unit * std::sqrt(2.0f / static_cast<float>(hidden_ * layers_));
  }

  static uint64_t seed_of(const std::string& module) { return std::hash<std::string>()(module); }

  kernels::PackedLinear linear(const LinearSpec& spec) override {
    int64_t rows = 0;
    for (const Part& part : spec.parts) rows += part.out_features;
    const std::string& module = spec.parts.front().module;
    const auto fill = [&](const kernels::Matrix& weight) {
      kernels::fill_normal(weight, seed_of(module), deviation_of(module, spec.in_features));
    };
    if (device() == kernels::Device::kGpu && !spec.bias) {
      const size_t bytes = static_cast<size_t>(rows * spec.in_features) * kernels::size_of(precision());
      kernels::DeviceBuffer memory(placement(), bytes);
      fill({memory.data(), rows, spec.in_features, spec.in_features, precision(), device()});
      return kernels::PackedLinear::over(std::move(memory), rows, spec.in_features, precision());
    }
    const kernels::Matrix weight = memory_.matrix(rows, spec.in_features, precision(), device());
    fill(weight);
    const std::vector<float> bias(spec.bias ? static_cast<size_t>(rows) : 0, 0.1f);
    return {weight, bias, precision(), placement()};
  }

  std::vector<float> vector(const std::string& name, int64_t size) override {
    return std::vector<float>(static_cast<size_t>(size), name == "model.norm.weight" ? 2.0f : 1.0f);
  }

  void fill_embeddings(const kernels::Matrix& table) override {
    kernels::fill_normal(table, seed_of(kEmbeddings), deviation_of(kEmbeddings, table.columns));
  }

  std::string head_module() const override { return head_; }

  static constexpr const char* kEmbeddings = "model.embed_tokens";
  const int64_t hidden_, layers_;
  const std::string head_;
  kernels::GrowBuffer memory_;
};

}  // namespace

Model Model::made_up(const ModelConfig& config, kernels::DType precision, kernels::Device device) {
  Model model = ModelMaker(config, precision, device).build(config);
  kernels::synchronize(device);  // other threads may read it
  return model;
}

}  // namespace scd
