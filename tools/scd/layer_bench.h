// One decoder layer of a model's shape: the ops of a forward pass in their order, over made-up weights, keys and
// values.
#pragma once

#include <cstdint>
#include <functional>

#include "common/model/model_shapes.h"
#include "kernels/linear.h"
#include "kernels/rope.h"
#include "tools/scd/paged_rows.h"

namespace scd {

class LayerBench {
 public:
  LayerBench(const ModelShape& shape, kernels::Device device, kernels::DType precision, kernels::RopeTable rope);

  // Seconds of a pass of these rows, by whoever measures; rows of one token each are recorded first on a GPU, as
  // decode steps are.
  double measure(const RowsOfSequences& rows,
                 const std::function<double(const std::function<void()>&)>& seconds_of) const;

  int64_t weights() const;  // of its linear layers

 private:
  const ModelShape& shape_;
  const kernels::Device device_;
  const kernels::DType precision_;
  const kernels::RopeTable rope_;
  const int64_t query_, kv_;  // columns
  kernels::DeviceVector norm_;
  kernels::PackedLinear qkv_, output_, gate_up_, down_;
};

}  // namespace scd
