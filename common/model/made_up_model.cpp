// A model with random weights, made where they are kept.
#include <cmath>
#include <functional>
#include <string>

#include "common/model/make_model.h"
#include "common/model/model_builder.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"

namespace scd {
namespace {

class ModelMaker final : public ModelBuilder {
 public:
  ModelMaker(const ModelConfig& config, kernels::DType precision, kernels::Device device)
      : ModelBuilder(precision, device), hidden_(config.hidden), layers_(config.layers) {}

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
    const kernels::Matrix weight = memory_.matrix(rows, spec.in_features, precision(), device());
    kernels::fill_normal(weight, seed_of(module), deviation_of(module, spec.in_features));
    const std::vector<float> bias(spec.bias ? static_cast<size_t>(rows) : 0, 0.1f);
    return {weight, bias, precision(), placement()};
  }

  std::vector<float> vector(const std::string& name, int64_t size) override {
    return std::vector<float>(static_cast<size_t>(size), name == "model.norm.weight" ? 2.0f : 1.0f);
  }

  void fill_embeddings(const kernels::Matrix& table) override {
    kernels::fill_normal(table, seed_of(kEmbeddings), deviation_of(kEmbeddings, table.columns));
  }

  std::string head_module() const override { return kEmbeddings; }

  static constexpr const char* kEmbeddings = "model.embed_tokens";
  const int64_t hidden_, layers_;
  kernels::GrowBuffer memory_;
};

}  // namespace

Model Model::made_up(const std::string& shape, kernels::DType precision, kernels::Device device) {
  const ModelConfig config = model_shape_config(shape);
  return ModelMaker(config, precision, device).build(config);
}

}  // namespace scd
