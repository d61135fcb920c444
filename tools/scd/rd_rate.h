// Rates of an `rd` codec: the step that meets one by the tables, and how far a level is from what rate-distortion
// theory allows (T. Cover, J. Thomas, "Elements of Information Theory", 10.3.3, reverse water-filling).
#pragma once

#include <span>
#include <vector>

#include "common/codec/rd/rd_quantiser.h"

namespace scd {

// The step at which all units cost so many bits a token, by the tables.
float step_for(const RdQuantiserSettings& settings, double wanted_bits);

// What a decoder reads of a unit's codes [components, tokens] at a level; components that are not sent are 0.
DenseMatrix read_back(const RdQuantiser& quantiser, int32_t unit, int32_t level, const DenseMatrix& codes);

// Of a level, all units together.
struct RateBound {
  double bits = 0;        // a token, as coded
  double distortion = 0;  // in the metric: the KL that quantising costs, to first order
  double bound_bits = 0;  // least bits a token at this distortion for independent Gaussian components
};

// codes: by unit, [components, sampled tokens], as the encoder makes them. One a level.
std::vector<RateBound> rate_bounds(const RdQuantiserSettings& settings, std::span<const DenseMatrix> codes);

}  // namespace scd
