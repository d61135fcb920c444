// AdamW with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101) for one parameter vector.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace scd {

class AdamW {
 public:
  AdamW(size_t parameters, float weight_decay);

  // One step at `learning_rate`.
  void step(std::span<float> parameters, std::span<const float> gradient, float learning_rate);

 private:
  float weight_decay_;
  int64_t steps_ = 0;
  std::vector<float> first_;   // running mean of gradients
  std::vector<float> second_;  // of their squares
};

}  // namespace scd
