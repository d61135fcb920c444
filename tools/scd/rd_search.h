// Fits an `rd` codec in every way that is asked for, compares them on validation text and keeps the best.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/scd/codec_check.h"
#include "tools/scd/rd_evidence.h"

namespace scd {

// An encoder with one consumer's decoder.
struct RdCodec {
  const RdEncoderMaps& encoder;
  const RdDecoderMaps& decoder;
};

// Levels on text that nothing was fitted on; last, where asked for, what a search weighs them against: the producer's
// cache as it is, or where that is none of the consumer's, what the consumer knows without any code.
std::vector<CheckedCodec> measure_levels(const CalibrationInput& input, CacheExperimentOptions options,
                                         const ScoredText& text, const RdCodec& codec, bool with_bare,
                                         const std::string& purpose);

class RdSearch {
 public:
  // All must outlive it. evidence: by input.
  RdSearch(std::span<const CalibrationInput> inputs, std::span<const RdEvidence> evidence,
           const RdCalibrationOptions& options, std::vector<CalibrationStage>& stages);

  // With every width of networks.
  void try_plan(const LayerPlan& plan, RdVariant variant, double anchor_share);

  struct Best {
    RdFit fit;
    int64_t network_width = 0;
  };
  // Throws Error kInvalidArgument when every plan runs more layers natively than the options allow.
  Best take_best();
  std::vector<RdPlanReport> take_reports() { return std::move(reports_); }  // empty where there is nothing to search

 private:
  void add_networks(int64_t width, RdFit& fit) const;
  void consider(RdFit fit, RdPlanReport report);
  RdPlanReport judge_for_all(const RdFit& fit, RdPlanReport report);  // with levels and score

  std::span<const CalibrationInput> inputs_;
  std::span<const RdEvidence> evidence_;
  const RdCalibrationOptions& options_;
  std::vector<CalibrationStage>& stages_;
  std::vector<RdConsumer> consumers_;
  // By consumer; of models of different shapes those of the first plan hold for all, so that no plan loses by what it
  // knows without codes.
  std::vector<double> bare_kls_;
  std::vector<RdPlanReport> reports_;
  Best best_;
  double best_score_ = -1;
};

}  // namespace scd
