// The update of AdamW for one parameter, the same on every device.
#pragma once

#include <cmath>

#include "kernels/host_device.h"
#include "kernels/training.h"

namespace scd::kernels {

struct AdamWFactors {
  static constexpr float kFirstDecay = 0.9f;
  static constexpr float kSecondDecay = 0.999f;
  static constexpr float kEpsilon = 1e-8f;

  explicit AdamWFactors(const AdamWStep& step)
      : learning_rate(step.learning_rate),
        shrink(1.0f - step.learning_rate * step.weight_decay),
        first_scale(1.0f / (1.0f - std::pow(kFirstDecay, static_cast<float>(step.step)))),
        second_scale(1.0f / (1.0f - std::pow(kSecondDecay, static_cast<float>(step.step)))) {}

  SCD_HOST_DEVICE void update(float& parameter, float gradient, float& first, float& second) const {
    first = kFirstDecay * first + (1.0f - kFirstDecay) * gradient;
    second = kSecondDecay * second + (1.0f - kSecondDecay) * gradient * gradient;
    parameter = parameter * shrink - learning_rate * first * first_scale / (sqrtf(second * second_scale) + kEpsilon);
  }

  float learning_rate, shrink, first_scale, second_scale;
};

}  // namespace scd::kernels
