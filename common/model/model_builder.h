// The weights of a model in the order and the places that forward passes want them in, whoever makes them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/model/model.h"

namespace scd {

class ModelBuilder {
 public:
  ModelBuilder(kernels::DType precision, kernels::Device device) : precision_(precision), placement_(device) {}
  virtual ~ModelBuilder() = default;

  // On a GPU all weights lie in one arena: whether there is room shows before any is made.
  Model build(ModelConfig config);

 protected:
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

  virtual kernels::PackedLinear linear(const LinearSpec& spec) = 0;
  virtual std::vector<float> vector(const std::string& name, int64_t size) = 0;
  // The table of embeddings [vocab, hidden], on device() in precision().
  virtual void fill_embeddings(const kernels::Matrix& table) = 0;
  // Whose weight is the head's: that of the embeddings, where the two are tied.
  virtual std::string head_module() const = 0;

  kernels::DType precision() const { return precision_; }
  kernels::Device device() const { return placement_.device(); }
  const kernels::Placement& placement() const { return placement_; }

 private:
  LayerWeights layer(const ModelConfig& config, const std::string& prefix);
  void build_embeddings(Model& model);
  kernels::DeviceVector device_vector(const std::string& name, int64_t size) {
    return {vector(name, size), placement_};
  }

  const kernels::DType precision_;
  kernels::Placement placement_;
};

}  // namespace scd
