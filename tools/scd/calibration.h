// Calibrates `scd` for a pair of models: statistics, fits, patch search, and the check on text that nothing was fitted
// on. docs/codec.md tells the same story in words.
#pragma once

#include <cstdint>
#include <vector>

#include "common/codec/artifact.h"
#include "common/codec/calibration/predictor_fit.h"
#include "common/model/model.h"
#include "common/rebuild/model_shape.h"
#include "tools/scd/cache_experiment.h"
#include "tools/scd/calibration_text.h"
#include "tools/scd/patch_search.h"

namespace scd {

struct CalibrationOptions {
  RankCaps rank;              // 0: default_ranks()
  int32_t patch_layers = -1;  // -1: as the search chooses; else exactly so many
  int32_t pool = 8;           // layers for which Patch is fitted and searched
  double max_kl = 0;          // on held-out text; 0: no limit
  double ridge = 1e-4;
  uint64_t seed = 1;
  int64_t reservoir_bytes = int64_t{512} << 20;  // memory of the samples Patch is fitted on, all layers together
  int64_t reservoir_tokens = 8192;               // at most so many a layer
  PredictorOptions predictor;
  CacheExperimentOptions experiment;
};

struct CalibrationInput {
  const Model& producer;
  const Model& consumer;
  ModelIdentity producer_identity;
  ModelIdentity consumer_identity;
  const CalibrationText& text;
};

struct LayerReport {
  double key_loss = 0;  // E||y - y'||^2 / E||y||^2 on validation text
  double value_loss = 0;
  double gain = 0;  // KL gained by restoring the layer to the truth; 0 where it was not measured
  bool patched = false;
  double patch_loss = 0;  // of the predicted attention input; 0 where no Patch was fitted
};

struct CalibrationResult {
  ArtifactEncoder encoder;
  ArtifactDecoder decoder;  // its prediction is that on held-out text
  std::vector<LayerReport> layers;
  std::vector<PatchStep> steps;  // of the search, on validation text
  double reuse_kl = 0;           // all Reuse, on validation text
  double held_out_reuse_kl = 0;  // and on held-out text
  bool meets_max_kl = true;
};

// Ranks of 0 replaced: keys 3/4 of head_dim, values all of it (they need more: paper, rank sweep), hidden 3/4 of it.
RankCaps default_ranks(const RankCaps& wanted, const CodecModel& model);

// Payload bytes of one handed-over token over all coded layers, block headers included.
double payload_bytes_per_token(const std::vector<ScdLayerEncoder>& layers, const CodecModel& model,
                               const CacheExperimentOptions& experiment);

// What the artifact records of it; known before models are loaded.
CalibrationRecord record_of(const CalibrationText& text, const CalibrationOptions& options);

// Refuses to begin a calibration that cannot be written: throws Error kAlreadyExists, naming what differs, where
// `there`, the encoder that the folder holds, was fitted on other models, text, options or ranks.
void require_same_calibration(const ArtifactEncoder& there, const ModelIdentity& producer,
                              const ModelIdentity& consumer, const CalibrationText& text,
                              const CalibrationOptions& options);

// Same input and options, same artifact. Shows its progress. Throws Error kFailedPrecondition for models whose caches
// do not have one shape, kInvalidArgument for ranks beyond them.
CalibrationResult calibrate(const CalibrationInput& input, const CalibrationOptions& options);

// A further consumer of an encoder that stays as it is: only a decoder is fitted, no search.
CalibrationResult calibrate_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                     const CalibrationOptions& options);

}  // namespace scd
