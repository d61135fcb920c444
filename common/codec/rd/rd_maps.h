// The linear maps and the quantiser of the `rd` codec, as calibrated: reduced-rank regression of the consumer's keys
// and values on the producer's, all heads of a layer together, weighted by what the consumer's attention makes of an
// error. A code c = map x + offset has one component per direction, the most important first; each is worth its own
// variance, so that one quantiser step for all components of all layers is the rate-distortion optimum (reverse
// water-filling; T. Cover, J. Thomas, "Elements of Information Theory", section 10.3).
//
// x = [K~ V] of the producer, y = [K~ V] of the consumer; K~ are keys before RoPE.
#pragma once

#include <cstdint>
#include <vector>

#include "common/codec/dense_matrix.h"

namespace scd {

struct RdLayerEncoder {
  DenseMatrix map;            // [components, 2 kv_width of A]
  std::vector<float> offset;  // [components]
  bool operator==(const RdLayerEncoder&) const = default;
};

// y' = map^T c + mean.
struct RdLayerDecoder {
  DenseMatrix map;          // [components, 2 kv_width of B]
  std::vector<float> mean;  // [2 kv_width of B]
  bool operator==(const RdLayerDecoder&) const = default;
};

// How codes become symbols; the same on both sides.
struct RdQuantiserSettings {
  std::vector<float> steps;                    // of the levels, the finest first
  std::vector<std::vector<float>> deviations;  // by layer: standard deviation of each component, falling
  DenseMatrix frequencies;                     // [kRdTables, 256]: rANS frequencies of a component, by deviation / step
  std::vector<float> shifts;  // [kRdTables]: where values lie in their cell on average, in steps from its centre
  bool operator==(const RdQuantiserSettings&) const = default;
};

}  // namespace scd
