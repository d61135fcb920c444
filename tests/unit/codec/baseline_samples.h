// What the baseline codecs are made of, for the small model of codec_samples.h.
#pragma once

#include <vector>

#include "common/codec/layer_plan.h"
#include "common/codec/lora_delta_maps.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd::testing {

// Layer 0 exact, layer 1 as it is, layer 2 from its residual stream.
inline LayerPlan sample_droidspeak_plan() { return {1, {{1, 1}, {2, 1, true}}, /*predicted=*/false}; }

struct LoraSample {
  std::vector<LoraDeltaEncoderLayer> down;
  std::vector<LoraDeltaDecoderLayer> up;
};

// Nothing of layer 0, keys and values of layer 1 at different ranks, values of layer 2.
inline LoraSample sample_lora(const CodecModel& model) {
  const auto factor = [](int64_t rank, int64_t columns, uint32_t seed) {
    DenseMatrix matrix = random_matrix(rank, columns, seed);
    for (float& value : matrix.values) value *= 0.2f;
    return matrix;
  };
  LoraSample sample;
  sample.down = {{}, {factor(3, model.hidden, 71), factor(2, model.hidden, 72)}, {{}, factor(2, model.hidden, 73)}};
  sample.up = {
      {}, {factor(3, model.kv_width(), 74), factor(2, model.kv_width(), 75)}, {{}, factor(2, model.kv_width(), 76)}};
  return sample;
}

}  // namespace scd::testing
