// An `rd` codec for small models that tests share: orthogonal maps, so that a code is the state turned, and tables of a
// normal distribution.
#pragma once

#include <cmath>
#include <vector>

#include "common/codec/rd/rd_quantiser.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd::testing {

struct RdSample {
  std::vector<RdLayerEncoder> encoders;
  std::vector<RdLayerDecoder> decoders;
  RdQuantiserSettings quantiser;
};

inline float normal_share(float from, float to) {
  const auto below = [](float x) { return 0.5f * std::erfc(-x / std::sqrt(2.0f)); };
  return below(to) - below(from);
}

// Components are the values themselves, in order, times a falling weight from 1 down to 1/2.
inline RdSample sample_rd(const CodecModel& model, std::vector<float> steps) {
  RdSample sample;
  const int64_t width = 2 * model.kv_width();
  for (int32_t layer = 0; layer < model.layers; ++layer) {
    RdLayerEncoder encoder{DenseMatrix(width, width), std::vector<float>(static_cast<size_t>(width))};
    RdLayerDecoder decoder{DenseMatrix(width, width), std::vector<float>(static_cast<size_t>(width))};
    std::vector<float> deviations;
    for (int64_t i = 0; i < width; ++i) {
      const float weight = 1.0f / (1.0f + static_cast<float>(i) / static_cast<float>(width));
      encoder.map.at(i, i) = weight;
      decoder.map.at(i, i) = 1 / weight;
      deviations.push_back(weight);
    }
    sample.encoders.push_back(std::move(encoder));
    sample.decoders.push_back(std::move(decoder));
    sample.quantiser.deviations.push_back(std::move(deviations));
  }
  sample.quantiser.steps = std::move(steps);
  sample.quantiser.frequencies = DenseMatrix(kRdTables, kRansSymbols);
  sample.quantiser.shifts.assign(kRdTables, 0.0f);
  for (size_t table = 0; table < kRdTables; ++table) {
    std::array<uint64_t, kRansSymbols> counts{};
    const float cell = 1 / rd_ratio_of(table);
    for (int q = -127; q <= 127; ++q) {
      const float share = normal_share((static_cast<float>(q) - 0.5f) * cell, (static_cast<float>(q) + 0.5f) * cell);
      counts[static_cast<size_t>(q + 128)] = static_cast<uint64_t>(share * 1e6f);
    }
    counts[kRdEscape] = 1;
    const RansFrequencies frequencies = scale_to_frequencies(counts);
    for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
      sample.quantiser.frequencies.at(static_cast<int64_t>(table), static_cast<int64_t>(symbol)) = frequencies[symbol];
    }
  }
  return sample;
}

}  // namespace scd::testing
