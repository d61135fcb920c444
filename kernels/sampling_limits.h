// What sampling on the CPU and on CUDA agree on, so that equal logits and random numbers give equal tokens.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/sampling.h"

namespace scd::kernels {

struct Candidate {
  float logit;
  int32_t id;
};

// A NaN can never be chosen and must not break the order.
SCD_HOST_DEVICE inline float ordered(float logit) { return std::isnan(logit) ? -INFINITY : logit; }

// By a LogitChange; rounded once, so that devices agree.
SCD_HOST_DEVICE inline float changed(float logit, float penalty, float bias) {
  return logit > 0.0f ? logit / penalty + bias : std::fma(logit, penalty, bias);
}

// Tokens this many units below the largest logit, at the temperature, are never drawn without filters: together they
// weigh less than 1e-13 in any vocabulary of a million.
inline constexpr float kNegligible = 44.0f;

// How far below the largest logit a token may lie that is drawn: min_p, where there is one.
inline float reach_of(const SamplingOptions& options) {
  return options.temperature * (options.min_p == 0.0f ? kNegligible : -std::log(options.min_p));
}

// Whether the tokens have to be put in order.
inline bool filters_by_rank(const SamplingOptions& options) { return options.top_k > 0 || options.top_p < 1.0f; }

// Distances from the largest logit within which the leading tokens are looked for: a pass over the vocabulary is far
// cheaper than sorting it, and the leading tokens are few.
inline constexpr int kLeadingSteps = 16;
inline float leading_distance(int step) {
  float distance = 2.0f;
  for (; step > 0; --step) distance *= 1.5f;
  return distance;
}

// A little more than top_p asks for, as sums over the vocabulary are in single precision and later ones are not.
SCD_HOST_DEVICE inline double wanted_weight(double total, float top_p) {
  const double wanted = total * top_p * (1.0 + 1e-5);
  return wanted < total ? wanted : total;
}

}  // namespace scd::kernels
