// What coding costs on this machine: the figures CodecPolicy begins with.
#pragma once

#include <vector>

#include "common/codec/artifact.h"
#include "common/codec/codec_model.h"

namespace scd {

// Of a token, encoding and decoding together on one core.
struct CoderCost {
  double bytes = 0;
  double seconds = 0;
};

struct CoderCosts {
  CoderCost raw;
  CoderCost lossless;
  // Of the symbols alone, by level of the artifact; empty where its codec has none.
  std::vector<CoderCost> entropy;
  std::vector<CoderCost> packed;
};

// Codes made-up, normally distributed values for some milliseconds. `layers`: that are sent. artifact: null for none,
// and where symbols are read on a GPU, which reads the packed form on the host.
CoderCosts measure_coders(const CodecModel& model, int32_t layers, const ArtifactDecoder* artifact);

}  // namespace scd
