// Linear layers on the CPU.
#pragma once

#include <memory>
#include <span>

#include "kernels/linear.h"

namespace scd::kernels::cpu {

class LinearWeights {
 public:
  LinearWeights(ConstMatrix weight, std::span<const float> bias, DType precision);
  LinearWeights(LinearWeights&&) noexcept;
  LinearWeights& operator=(LinearWeights&&) noexcept;
  ~LinearWeights();

  int64_t in_features() const;
  int64_t out_features() const;
  DType precision() const;
  size_t bytes() const;
  void forward(ConstMatrix x, Matrix y, bool accumulate) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace scd::kernels::cpu
