// The linear maps and the quantiser of the `rd` codec, as calibrated: reduced-rank regression of what the consumer
// holds of a unit (layer_plan.h) on what the producer holds, all heads and layers of the unit together, weighted by
// what the consumer's attention makes of an error. A code c = map x + offset has one component per direction, the most
// important first; each is worth its own variance, so that one quantiser step for all components of all units is the
// rate-distortion optimum (reverse water-filling; T. Cover, J. Thomas, "Elements of Information Theory", section 10.3).
//
// Side information: with h the consumer's residual stream before the unit's anchor layer, divided by its root mean
// square, and g = anchor basis^T h the few directions of it that tell most of y (or h itself, without a basis),
// y' = decoder map^T c + anchor map^T g + mean. Only what g does not tell is in c (the Wyner-Ziv setting with linear
// maps: the encoder subtracts what its own residual stream h_A predicts, which its map holds as well). What a linear
// decoder leaves of y a small network of [c h] may add.
//
//   keys and values   x = [K~ V h_A] of the producer, y = [K~ V] of the consumer; K~ are keys before RoPE,
//                     of all layers of the unit side by side, then V of all layers. Each model's own layers, heads
//                     and widths (UnitSource)
//   residual          x = [r_A h_A], y = r_B: the residual stream before the unit's first layer, divided by the root
//                     mean square of the anchor's
#pragma once

#include <cstdint>
#include <vector>

#include "common/codec/dense_matrix.h"
#include "common/codec/layer_plan.h"
#include "common/codec/small_network.h"

namespace scd {

struct RdUnitEncoder {
  DenseMatrix map;            // [components, dims of x]
  std::vector<float> offset;  // [components]
  bool operator==(const RdUnitEncoder&) const = default;
};

struct RdUnitDecoder {
  DenseMatrix map;                // [components, dims of y]
  DenseMatrix anchor_map;         // [directions, dims of y]; empty without an anchor
  std::vector<float> mean;        // [dims of y]
  SmallNetwork network = {};      // of [c h]; empty where it would be of no use
  DenseMatrix anchor_basis = {};  // [hidden of B, directions]; empty: h itself
  int64_t anchor_dims() const { return anchor_basis.empty() ? anchor_map.rows : anchor_basis.rows; }  // of h, 0: none
  bool operator==(const RdUnitDecoder&) const = default;
};

// How codes become symbols; the same on both sides.
struct RdQuantiserSettings {
  std::vector<float> steps;                    // of the levels, the finest first
  std::vector<std::vector<float>> deviations;  // by unit: standard deviation of each component, falling
  DenseMatrix frequencies;                     // [kRdTables, 256]: rANS frequencies of a component, by deviation / step
  std::vector<float> shifts;  // [kRdTables]: where values lie in their cell on average, in steps from its centre
  bool operator==(const RdQuantiserSettings&) const = default;
};

struct RdEncoderMaps {
  LayerPlan plan;
  std::vector<UnitSource> sources;  // by unit, where the models are not as deep as each other; else empty
  std::vector<RdUnitEncoder> units;
  RdQuantiserSettings quantiser;
  bool operator==(const RdEncoderMaps&) const = default;
};

struct RdDecoderMaps {
  LayerPlan plan;
  std::vector<RdUnitDecoder> units;
  RdQuantiserSettings quantiser;
  bool operator==(const RdDecoderMaps&) const = default;
};

}  // namespace scd
