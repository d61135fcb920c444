#include "tools/scd/rd_evidence.h"

#include <utility>

#include "common/codec/calibration/algebra.h"
#include "common/log/progress.h"
#include "tools/scd/rd_costs.h"
#include "tools/scd/run_tasks.h"

namespace scd {
namespace {

UnitPairsOptions pairs_of(const RdCalibrationOptions& options) {
  UnitPairsOptions pairs = options.network_samples;
  pairs.seed = options.seed;
  return pairs;
}

// Rows that networks are judged by.
std::optional<UnitPairs> validation_pairs(const CalibrationInput& input, const RdCalibrationOptions& options) {
  if (!trains_networks(options)) return std::nullopt;
  const ModelDepths depths{input.producer.config().layers, input.consumer.config().layers};
  const std::vector<AnchoredUnit> units = anchored_units(options.plans, depths);
  UnitPairs pairs(codec_model_of(input.producer.config()), codec_model_of(input.consumer.config()), units,
                  pairs_of(options));
  Progress progress("running both models over validation text");
  UnitPass(input.producer, input.consumer, units, options.experiment.sinks)
      .run(one_of_each_context(input.text.validation).windows,
           {.layer = {}, .unit = [&](size_t unit, const UnitRows& rows) { pairs.add(unit, rows); }},
           [&](double share) { progress.update(share); });
  progress.finish();
  return pairs;
}

std::vector<LayerMetric> weighted_metrics(const CalibrationInput& input, const RdStatistics& statistics,
                                          const RdCalibrationOptions& options) {
  int32_t first = 1;
  for (const LayerPlan& plan : options.plans) first = std::min(first, plan.exact_layers);
  const ErrorCosts costs = measure_error_costs(
      input.consumer,
      options.weigh_on_answers ? validation_sample(input, options.experiment)
                               : last_tokens_of(one_of_each_context(input.text.validation).windows, options.experiment),
      statistics, {.first = first, .seed = options.seed, .experiment = options.experiment});
  std::vector<LayerMetric> metrics(costs.keys.size());
  run_tasks({metrics.size(), Algebra(input.consumer.device()).fits_at_once()}, [&](size_t layer, size_t) {
    const auto index = static_cast<int32_t>(layer);
    metrics[layer] = metric_of(input.consumer, index, statistics.layer(index));
    metrics[layer].keys *= costs.keys[layer];
    metrics[layer].values *= costs.values[layer];
  });
  return metrics;
}

}  // namespace

bool trains_networks(const RdCalibrationOptions& options) { return std::ranges::max(options.network_widths) > 0; }

bool searches(const RdCalibrationOptions& options) {
  return options.plans.size() * options.variants.size() * options.network_widths.size() * options.anchor_shares.size() >
         1;
}

RdStatistics gather_statistics(const CalibrationInput& input, const RdCalibrationOptions& options) {
  RdStatisticsOptions wanted{.sinks = options.experiment.sinks, .sample_tokens = options.sample_tokens};
  if (trains_networks(options)) wanted.pairs = pairs_of(options);
  RdStatistics statistics(input.producer, input.consumer, options.plans, wanted);
  Progress progress("running both models over " + std::to_string(count_tokens(input.text.fit)) + " tokens");
  statistics.add_all(input.text.fit, [&](double share) { progress.update(share); });
  progress.finish();
  return statistics;
}

RdEvidence gather_evidence(const CalibrationInput& input, const RdCalibrationOptions& options,
                           std::vector<CalibrationStage>& stages) {
  RdStatistics statistics =
      timed(stages, "both models over the text", [&] { return gather_statistics(input, options); });
  std::vector<LayerMetric> metrics =
      timed(stages, "what errors cost", [&] { return weighted_metrics(input, statistics, options); });
  std::optional<UnitPairs> pairs =
      timed(stages, "both models over the text", [&] { return validation_pairs(input, options); });
  RdEvidence evidence{std::move(statistics), std::move(metrics), std::move(pairs), {}};
  if (searches(options)) evidence.validation = validation_text(input, options.experiment);
  return evidence;
}

std::vector<RdEvidence> gather_evidence(std::span<const CalibrationInput> inputs, const RdCalibrationOptions& options,
                                        std::vector<CalibrationStage>& stages) {
  std::vector<RdEvidence> all;
  for (const CalibrationInput& input : inputs) {
    SCD_CHECK(&input.producer == &inputs.front().producer && &input.text == &inputs.front().text,
              "one producer and text");
    if (input.consumer.config().layers != inputs.front().consumer.config().layers) {
      throw Error(ErrorCode::kFailedPrecondition, "consumers of one encoder must be as deep as each other: " +
                                                      std::to_string(inputs.front().consumer.config().layers) +
                                                      " and " + std::to_string(input.consumer.config().layers) +
                                                      " layers");
    }
    all.push_back(gather_evidence(input, options, stages));
  }
  return all;
}

}  // namespace scd
