// Calibrates `rd` for a pair of models: statistics, what an error in each layer's keys and values costs in KL, the fit
// in that metric, the coder's tables, and levels checked on text that nothing was fitted on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/codec/artifact.h"
#include "tools/scd/cache_experiment.h"
#include "tools/scd/calibration.h"
#include "tools/scd/rd_fitter.h"

namespace scd {

// How a plan is put together (layer_plan.h).
struct RdPlanOptions {
  int32_t exact_layers = 1;  // first layers whose keys and values the consumer computes
  int32_t group = 1;         // layers coded together, at most
  struct Span {
    int32_t first = 0;
    int32_t last = 0;
  };
  std::vector<Span> native = {};  // rising; run by the consumer from a coded residual stream
  bool predicted = true;          // what is coded is predicted from the consumer's own residual stream
};
// Throws Error kInvalidArgument saying what does not fit a model of so many layers.
LayerPlan make_plan(const RdPlanOptions& options, int32_t layers);

struct RdCalibrationOptions {
  CodecId codec = CodecId::kRd;  // or kKvtc, whose only variant is kPrincipalComponents
  // One, or those to search among: all are fitted and measured on validation text, and the one with the most KL gained
  // per time stays, where the time is that of the bytes at bandwidth_gbps and of the consumer's work.
  std::vector<LayerPlan> plans;
  std::vector<RdVariant> variants{RdVariant::kFull};  // ways to fit; several are searched with every plan
  // Of the decoder's networks, 0: none. Several are searched with every plan and variant.
  std::vector<int64_t> network_widths{0};
  // Of what the consumer's anchors tell of its state: what predictions are to tell, of few of their directions. Several
  // are searched likewise.
  std::vector<double> anchor_shares{1};
  UnitPairsOptions network_samples;  // that they are trained on; the seed is the calibration's
  bool weigh_on_answers = true;      // errors, else on the last tokens of validation text
  double bandwidth_gbps = 1.0;
  double max_native_share = 1.0;                          // of the consumer's layers, run over the prefix
  std::vector<double> ratios{8, 12, 16, 24, 32, 48, 64};  // of BF16 bytes to a level's, by the coder's tables
  double ridge = 1e-4;
  uint64_t seed = 1;
  int64_t sample_tokens = 1024;  // that the tables are trained on
  CacheExperimentOptions experiment;
};

// A plan's levels as measured; of several consumers the mean.
struct RdPlanReport {
  LayerPlan plan;
  RdVariant variant = RdVariant::kFull;
  int64_t network_width = 0;
  double anchor_share = 1;
  double native_share = 0;
  double rebuild_us = 0;  // of the consumer, a token: decoding and native layers
  std::vector<CodecPrediction> levels;
  double score = 0;  // the best level's KL gained per microsecond and token
};

// What a stage of the work took, all layers together.
struct CalibrationStage {
  std::string name;
  double seconds = 0;
};

struct RdCalibrationResult {
  ArtifactEncoder encoder;
  std::vector<ArtifactDecoder> decoders;  // of each consumer; their levels are measured on held-out text
  std::vector<RdPlanReport> search;       // empty where there was one plan, variant, width and share
  int64_t network_width = 0;              // of the decoders
  std::vector<RdUnitReport> units;
  std::vector<RateBound> bounds;  // of the levels
  std::vector<CalibrationStage> stages;
};

// One encoder for all consumers and a decoder for each: inputs share their producer and text. Same inputs and options,
// same artifact. Shows its progress. Models may differ in depth and width. Throws Error kFailedPrecondition for
// consumers that are not all as deep.
RdCalibrationResult calibrate_rd(std::span<const CalibrationInput> inputs, const RdCalibrationOptions& options);
inline RdCalibrationResult calibrate_rd(const CalibrationInput& input, const RdCalibrationOptions& options) {
  return calibrate_rd(std::span(&input, 1), options);
}

// A further consumer of an encoder that stays as it is: only decoders are fitted. Of the options: ridge, seed, networks
// of one width, one anchor share, what the metric is measured with, and experiment.
RdCalibrationResult calibrate_rd_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                          RdCalibrationOptions options);

}  // namespace scd
