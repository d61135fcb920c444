#include "tools/scd/rd_calibration.h"

#include <algorithm>
#include <utility>

#include "common/codec/model_difference.h"
#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "common/log/progress.h"
#include "tools/scd/codec_check.h"
#include "tools/scd/rd_costs.h"

namespace scd {
namespace {

// Layer 0 costs nothing where any layer is exact.
bool exact_layer0(const LayerPlan& plan) { return plan.exact_layers > 0; }

RdStatistics gather(const CalibrationInput& input, const RdCalibrationOptions& options) {
  RdStatistics statistics(input.producer, input.consumer, options.plans, options.experiment.sinks,
                          options.sample_tokens);
  Progress progress("running both models over " + std::to_string(count_tokens(input.text.fit)) + " tokens");
  statistics.add_all(input.text.fit, [&](double share) { progress.update(share); });
  progress.finish();
  return statistics;
}

std::vector<LayerMetric> weighted_metrics(const CalibrationInput& input, const RdStatistics& statistics,
                                          const RdCalibrationOptions& options) {
  int32_t first = 1;
  for (const LayerPlan& plan : options.plans) first = std::min(first, plan.exact_layers);
  const ErrorCosts costs = measure_error_costs(input, statistics, first, options.experiment, options.seed);
  std::vector<LayerMetric> metrics;
  for (int32_t layer = 0; layer < input.consumer.config().layers; ++layer) {
    metrics.push_back(metric_of(input.consumer, layer, statistics.layer(layer)));
    metrics.back().keys *= costs.keys[static_cast<size_t>(layer)];
    metrics.back().values *= costs.values[static_cast<size_t>(layer)];
  }
  return metrics;
}

// Levels on windows that nothing was fitted on; last, where asked for, the producer's cache as it is.
std::vector<CheckedCodec> measure(const CalibrationInput& input, CacheExperimentOptions options,
                                  std::span<const TokenWindow> windows, const RdFit& fit, bool with_raw,
                                  const std::string& purpose) {
  const CodecModel producer = codec_model_of(input.producer.config());
  const CodecModel consumer = codec_model_of(input.consumer.config());
  options.exact_layer0 = exact_layer0(fit.decoder.plan);
  const RdEncoder encoder(producer, fit.encoder, {});
  const RdDecoder decoder(consumer, fit.decoder, {});
  const auto raw_encoder = make_encoder(CodecId::kRaw, producer, nullptr);
  const auto raw_decoder = make_decoder(CodecId::kRaw, producer, consumer, nullptr);
  std::vector<CodecUnderCheck> codecs;
  for (int32_t level = 0; level < encoder.levels(); ++level) codecs.push_back({encoder, decoder, {.level = level}});
  if (with_raw) codecs.push_back({*raw_encoder, *raw_decoder});
  return check_codecs(input.producer, input.consumer, windows, options, codecs, purpose);
}

// checked: the levels, then the producer's cache as it is.
RdPlanReport judge(const LayerPlan& plan, std::span<const CheckedCodec> checked, const RdCalibrationOptions& options,
                   int32_t layers) {
  RdPlanReport report{.plan = plan, .native_share = plan.native_share(layers), .levels = {}};
  const double raw_kl = checked.back().prediction.kl;
  const std::span<const CheckedCodec> levels = checked.first(checked.size() - 1);
  for (const auto& [level, rebuild_us] : levels) {
    const double wire_us = level.bytes_per_token * 8e-3 / options.bandwidth_gbps;
    report.score = std::max(report.score, (raw_kl - level.kl) / (wire_us + rebuild_us));
    report.rebuild_us += rebuild_us / static_cast<double>(levels.size());
    report.levels.push_back(level);
  }
  return report;
}

void describe_decoder(const CalibrationInput& input, const RdCalibrationOptions& options, ArtifactDecoder& decoder) {
  decoder.codec = options.codec;
  decoder.calibration = {input.text.file_sha256, count_tokens(input.text.fit), count_tokens(input.text.held_out),
                         options.seed, options.ridge};
  decoder.producer = input.producer_identity;
  decoder.producer_model = codec_model_of(input.producer.config());
  decoder.consumer = input.consumer_identity;
  decoder.model = codec_model_of(input.consumer.config());
}

void describe_encoder(const CalibrationInput& input, const ArtifactDecoder& decoder, ArtifactEncoder& encoder) {
  encoder.codec = decoder.codec;
  encoder.calibration = decoder.calibration;
  encoder.producer = decoder.producer;
  encoder.model = decoder.producer_model;
  encoder.fitted_with = input.consumer_identity.weights;
}

void check_levels(const CalibrationInput& input, const RdCalibrationOptions& options, const RdFit& fit,
                  ArtifactDecoder& decoder) {
  for (const CheckedCodec& level : measure(input, options.experiment, input.text.held_out, fit, /*with_raw=*/false,
                                           "checking the levels on held-out text")) {
    decoder.levels.push_back(level.prediction);
  }
  decoder.prediction = decoder.levels.front();
}

}  // namespace

LayerPlan make_plan(const RdPlanOptions& options, int32_t layers) {
  LayerPlan plan{options.exact_layers, {}, options.predicted};
  int32_t next = options.exact_layers;
  const auto code_until = [&](int32_t end) {
    while (next < end) {
      const int32_t count = std::min(options.group, end - next);
      plan.units.push_back({next, count});
      next += count;
    }
  };
  for (const RdPlanOptions::Span& span : options.native) {
    code_until(std::min(span.first, layers));
    plan.units.push_back({span.first, span.last - span.first + 1, true});
    next = span.last + 1;
  }
  code_until(layers);
  const std::string problem = plan_problem(plan, layers);
  if (!problem.empty()) throw Error(ErrorCode::kInvalidArgument, "no plan for this model: " + problem);
  return plan;
}

RdCalibrationResult calibrate_rd(const CalibrationInput& input, const RdCalibrationOptions& options) {
  const CodecModel consumer = codec_model_of(input.consumer.config());
  require_same_kv_shape(codec_model_of(input.producer.config()), consumer, "calibration");
  SCD_CHECK(!options.plans.empty(), "a plan");
  const RdStatistics statistics = gather(input, options);
  const std::vector<LayerMetric> metrics = weighted_metrics(input, statistics, options);
  RdCalibrationResult result;
  RdFit best;
  double best_score = -1;
  for (const LayerPlan& plan : options.plans) {
    Progress progress("fitting " + to_string(plan));
    RdFit fit = fit_rd(input.consumer, statistics, metrics, plan,
                       {.ratios = options.ratios,
                        .raw_bytes = raw_bytes_per_token(consumer, exact_layer0(plan)),
                        .ridge = options.ridge,
                        .principal_components = options.codec == CodecId::kKvtc});
    progress.finish();
    if (options.plans.size() > 1) {
      const auto checked =
          measure(input, options.experiment, input.text.validation, fit, /*with_raw=*/true, "measuring it");
      result.search.push_back(judge(plan, checked, options, consumer.layers));
      const RdPlanReport& report = result.search.back();
      if (report.native_share > options.max_native_share || report.score <= best_score) continue;
      best_score = report.score;
    }
    best = std::move(fit);
  }
  if (best.decoder.units.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "every plan runs more layers natively than --max-native-share allows");
  }
  check_levels(input, options, best, result.decoder);
  result.encoder.rd = std::move(best.encoder);
  result.decoder.rd = std::move(best.decoder);
  result.units = std::move(best.units);
  describe_decoder(input, options, result.decoder);
  describe_encoder(input, result.decoder, result.encoder);
  return result;
}

RdCalibrationResult calibrate_rd_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                          RdCalibrationOptions options) {
  options.codec = encoder.codec;
  options.plans = {encoder.rd.plan};
  const RdStatistics statistics = gather(input, options);
  RdFit fit{encoder.rd, fit_rd_decoder(statistics, encoder.rd, options.ridge), {}};
  RdCalibrationResult result;
  check_levels(input, options, fit, result.decoder);
  result.encoder = encoder;
  result.decoder.rd = std::move(fit.decoder);
  result.decoder.encoder_id = encoder.id;
  describe_decoder(input, options, result.decoder);
  return result;
}

}  // namespace scd
