// Fits the maps, tables and levels of an `rd` codec for one plan.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/scd/rd_metric.h"
#include "tools/scd/rd_statistics.h"

namespace scd {

struct RdUnitReport {
  AnchoredUnit of;
  double energy = 0;         // of the unit's state in the metric: KL if all of it were lost, to first order
  double unpredictable = 0;  // of it, what no rate buys
};

struct RdFit {
  RdEncoderMaps encoder;
  RdDecoderMaps decoder;
  std::vector<RdUnitReport> units;
};

struct RdFitOptions {
  std::vector<double> ratios;  // of raw bytes to a level's, by the coder's tables, rising
  double raw_bytes = 0;        // a token
  double ridge = 1e-4;
  bool principal_components = false;  // of the producer's state, weighted by layer only, instead of the regression
};

// metrics: of the consumer's layers, weighted by what errors cost there.
RdFit fit_rd(const Model& consumer, const RdStatistics& statistics, std::span<const LayerMetric> metrics,
             const LayerPlan& plan, const RdFitOptions& options);

// The decoders of a consumer for an encoder that stays as it is.
RdDecoderMaps fit_rd_decoder(const RdStatistics& statistics, const RdEncoderMaps& encoder, double ridge);

}  // namespace scd
