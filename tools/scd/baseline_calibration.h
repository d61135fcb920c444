// Calibrates the baselines that fit nothing: `droidspeak`, whose span of critical layers is found by measuring, and
// `lora_delta`, whose maps are the adapter's own. Both are checked on held-out text like every other codec.
#pragma once

#include <cstdint>
#include <vector>

#include "common/codec/artifact.h"
#include "common/model/lora.h"
#include "tools/scd/cache_experiment.h"
#include "tools/scd/calibration.h"

namespace scd {

// Of the layers [first_layer, first_layer + layers), on validation text.
struct SpanReport {
  CodedUnit span;
  CodecPrediction measured;
};

struct BaselineResult {
  ArtifactEncoder encoder;
  ArtifactDecoder decoder;         // its prediction is that on held-out text
  std::vector<SpanReport> search;  // droidspeak; empty where one span was given
};

struct BaselineOptions {
  std::vector<CodedUnit> spans;  // droidspeak: candidates; none: every span of so many critical layers
  int32_t critical_layers = 0;   // 0: a quarter of the layers
  uint64_t seed = 1;
  CacheExperimentOptions experiment;
};

// The candidate whose KL on validation text is the least; the first of equals. Throws Error kInvalidArgument for spans
// that are none of the model, kFailedPrecondition for models whose caches or residual streams do not have one shape.
BaselineResult calibrate_droidspeak(const CalibrationInput& input, const BaselineOptions& options);

// A further consumer of an encoder whose span stays as it is.
BaselineResult calibrate_droidspeak_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                             const BaselineOptions& options);

// adapter: what the consumer is beyond the producer. Throws Error kFailedPrecondition where keys are normalised behind
// the weights that the adapter changes, so that its term cannot be added to them.
BaselineResult calibrate_lora_delta(const CalibrationInput& input, const LoraAdapter& adapter,
                                    const BaselineOptions& options);

}  // namespace scd
