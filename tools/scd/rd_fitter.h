// Fits the maps, tables and levels of an `rd` codec for one plan.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/scd/rd_metric.h"
#include "tools/scd/rd_rate.h"
#include "tools/scd/rd_statistics.h"
#include "tools/scd/rd_variants.h"

namespace scd {

struct RdUnitReport {
  AnchoredUnit of;
  double energy = 0;         // of the unit's state in the metric: KL if all of it were lost, to first order; of
                             // several consumers the mean
  double unpredictable = 0;  // of it, what no rate buys
  // Left of the unit's state on validation text, mean over levels, in the metric; 0 where no network was tried.
  double left_by_regression = 0;
  double left_with_network = 0;
};

struct RdFit {
  RdEncoderMaps encoder;
  std::vector<RdDecoderMaps> decoders;  // of each consumer
  std::vector<RdUnitReport> units;
  std::vector<RateBound> bounds;  // of the levels, on sampled text
};

// What is known of a consumer. All that it refers to must outlive it.
struct RdConsumer {
  const Model& model;
  const RdStatistics& statistics;        // of the producer and this consumer
  std::span<const LayerMetric> metrics;  // of its layers, weighted by what errors cost there
};

// In which errors of a unit's state cost what they cost the consumer.
Eigen::MatrixXd unit_metric(const RdConsumer& consumer, const AnchoredUnit& of);

// Codes of rows of x, [components, tokens].
DenseMatrix codes_of(const RdUnitEncoder& encoder, const DenseMatrix& x);

struct RdFitOptions {
  std::vector<double> ratios;  // of raw bytes to a level's, by the coder's tables, rising
  double raw_bytes = 0;        // a token
  double ridge = 1e-4;
  RdVariant variant = RdVariant::kFull;
  double anchor_share = 1;  // of what the anchors tell of the consumer's state: what predictions are to tell
};

// One encoder for consumers of one producer, whose errors count alike, and a decoder for each. Statistics are of the
// same text.
RdFit fit_rd(std::span<const RdConsumer> consumers, const LayerPlan& plan, const RdFitOptions& options);

// What a consumer knows of its state without any code: from its anchors, or the mean.
RdDecoderMaps without_codes(RdDecoderMaps maps);

// The decoder of a consumer for an encoder that stays as it is: regressions. Of the options: ridge, anchor_share.
RdDecoderMaps fit_rd_decoder(const RdConsumer& consumer, const RdEncoderMaps& encoder, const RdFitOptions& options);

}  // namespace scd
