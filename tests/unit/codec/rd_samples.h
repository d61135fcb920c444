// An `rd` codec for small models that tests share: orthogonal maps, so that a code is the state turned, and tables of a
// normal distribution.
#pragma once

#include <cmath>
#include <vector>

#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/rd/rd_state.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd::testing {

struct RdSample {
  RdEncoderMaps encoder;
  RdDecoderMaps decoder;
};

inline float normal_share(float from, float to) {
  const auto below = [](float x) { return 0.5f * std::erfc(-x / std::sqrt(2.0f)); };
  return below(to) - below(from);
}

// Components are the values themselves, in order, times a falling weight from 1 down to 1/2. With an anchor its part is
// in every component and taken out again by the decoder: where both models are one, nothing is lost.
inline RdSample sample_rd(const CodecModel& model, const LayerPlan& plan, std::vector<float> steps) {
  RdSample sample;
  sample.encoder.plan = plan;
  RdQuantiserSettings& quantiser = sample.encoder.quantiser;
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    const int64_t width = rd_state_width(model, plan.units[unit]);
    const int64_t anchor = plan.anchor_of(unit) >= 0 ? model.hidden : 0;
    RdUnitEncoder encoder{DenseMatrix(width, width + anchor), std::vector<float>(static_cast<size_t>(width))};
    RdUnitDecoder decoder{DenseMatrix(width, width), anchor > 0 ? DenseMatrix(anchor, width) : DenseMatrix{},
                          std::vector<float>(static_cast<size_t>(width))};
    std::vector<float> deviations;
    for (int64_t i = 0; i < width; ++i) {
      const float weight = 1.0f / (1.0f + static_cast<float>(i) / static_cast<float>(width));
      encoder.map.at(i, i) = weight;
      decoder.map.at(i, i) = 1 / weight;
      deviations.push_back(weight);
      if (anchor > 0) {
        encoder.map.at(i, width + i % anchor) = -0.1f * weight;
        decoder.anchor_map.at(i % anchor, i) = 0.1f;
      }
    }
    sample.encoder.units.push_back(std::move(encoder));
    sample.decoder.units.push_back(std::move(decoder));
    quantiser.deviations.push_back(std::move(deviations));
  }
  quantiser.steps = std::move(steps);
  quantiser.frequencies = DenseMatrix(kRdTables, kRansSymbols);
  quantiser.shifts.assign(kRdTables, 0.0f);
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
      quantiser.frequencies.at(static_cast<int64_t>(table), static_cast<int64_t>(symbol)) = frequencies[symbol];
    }
  }
  sample.decoder.plan = plan;
  sample.decoder.quantiser = quantiser;
  return sample;
}

}  // namespace scd::testing
