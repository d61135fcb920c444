// A codec for measuring: hands over the source's own cache with noise of known energy in the keys or in the values of
// each layer.
#pragma once

#include <memory>
#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"

namespace scd {

struct LayerNoise {
  float keys = 0;  // standard deviation of every value
  float values = 0;
};

// The payloads of codec raw; Gaussian noise by seed and place, so that the same place gets the same noise.
std::unique_ptr<Decoder> make_noise_decoder(const CodecModel& model, std::vector<LayerNoise> noise, uint64_t seed);

}  // namespace scd
