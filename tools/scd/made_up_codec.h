// Both sides of a codec rd that nobody calibrated: random maps whose codes have the deviations that are asked for, so
// that payloads have the length, and everything takes the time, of the real thing.
#pragma once

#include <cstdint>
#include <vector>

#include "common/codec/codec_model.h"
#include "common/codec/rd/rd_maps.h"

namespace scd {

DenseMatrix normal_matrix(int64_t rows, int64_t columns, uint64_t seed, float deviation = 1.0f);

// So many, falling geometrically from the first towards the last.
std::vector<float> falling_deviations(int64_t count, double first, double last);

// Tables of normally distributed components. deviations: by unit; steps: of the levels.
RdQuantiserSettings made_up_quantiser(std::vector<std::vector<float>> deviations, std::vector<float> steps);

struct MadeUpUnit {
  RdUnitEncoder encoder;
  RdUnitDecoder decoder;
};
// Of a plan and the deviations of its components.
struct MadeUpUnitArgs {
  const CodecModel& producer;
  const CodecModel& consumer;
  const LayerPlan& plan;
  size_t unit = 0;
  const std::vector<float>& deviations;
  uint64_t seed = 1;
};
// Codes are what the encoder makes of an anchor of mean square 1, or, without one, of keys and values of variance 1.
MadeUpUnit made_up_unit(const MadeUpUnitArgs& args);

}  // namespace scd
