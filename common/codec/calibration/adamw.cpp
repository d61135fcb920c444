#include "common/codec/calibration/adamw.h"

#include <cmath>

#include "common/base/check.h"

namespace scd {
namespace {

constexpr float kFirstDecay = 0.9f;
constexpr float kSecondDecay = 0.999f;
constexpr float kEpsilon = 1e-8f;

}  // namespace

AdamW::AdamW(size_t parameters, float weight_decay)
    : weight_decay_(weight_decay), first_(parameters), second_(parameters) {}

void AdamW::step(std::span<float> parameters, std::span<const float> gradient, float learning_rate) {
  SCD_CHECK(parameters.size() == first_.size() && gradient.size() == first_.size(), "parameters of AdamW");
  ++steps_;
  const auto count = static_cast<float>(steps_);
  const float first_scale = 1.0f / (1.0f - std::pow(kFirstDecay, count));
  const float second_scale = 1.0f / (1.0f - std::pow(kSecondDecay, count));
  const float shrink = 1.0f - learning_rate * weight_decay_;
  for (size_t i = 0; i < parameters.size(); ++i) {
    first_[i] = kFirstDecay * first_[i] + (1.0f - kFirstDecay) * gradient[i];
    second_[i] = kSecondDecay * second_[i] + (1.0f - kSecondDecay) * gradient[i] * gradient[i];
    parameters[i] = parameters[i] * shrink -
                    learning_rate * first_[i] * first_scale / (std::sqrt(second_[i] * second_scale) + kEpsilon);
  }
}

}  // namespace scd
