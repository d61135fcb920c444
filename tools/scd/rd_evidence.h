// What is gathered of the text for the fits and searches of `rd`, by consumer.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/scd/rd_calibration.h"
#include "tools/scd/scored_text.h"

namespace scd {

struct RdEvidence {
  RdStatistics statistics;
  std::vector<LayerMetric> metrics;
  std::optional<UnitPairs> network_validation;  // rows that networks are judged by, where any are trained
  ScoredText validation;                        // that plans are compared on; empty without a search
};

bool trains_networks(const RdCalibrationOptions& options);
bool searches(const RdCalibrationOptions& options);

RdStatistics gather_statistics(const CalibrationInput& input, const RdCalibrationOptions& options);
RdEvidence gather_evidence(const CalibrationInput& input, const RdCalibrationOptions& options,
                           std::vector<CalibrationStage>& stages);
// Of consumers of one producer and text. Throws Error kFailedPrecondition when they are not all as deep.
std::vector<RdEvidence> gather_evidence(std::span<const CalibrationInput> inputs, const RdCalibrationOptions& options,
                                        std::vector<CalibrationStage>& stages);

// Adds what `work` takes to the stage of this name.
template <typename Work>
auto timed(std::vector<CalibrationStage>& stages, const std::string& name, const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  auto result = work();
  auto stage = std::ranges::find(stages, name, &CalibrationStage::name);
  if (stage == stages.end()) stage = stages.insert(stages.end(), {name, 0});
  stage->seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace scd
