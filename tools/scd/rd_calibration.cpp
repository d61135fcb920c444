#include "tools/scd/rd_calibration.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "common/log/progress.h"
#include "tools/scd/codec_check.h"
#include "tools/scd/rd_costs.h"
#include "tools/scd/rd_networks.h"

namespace scd {
namespace {

// Layer 0 costs nothing where any layer is exact.
bool exact_layer0(const LayerPlan& plan) { return plan.exact_layers > 0; }

bool trains_networks(const RdCalibrationOptions& options) { return std::ranges::max(options.network_widths) > 0; }

UnitPairsOptions pairs_of(const RdCalibrationOptions& options) {
  UnitPairsOptions pairs = options.network_samples;
  pairs.seed = options.seed;
  return pairs;
}

RdStatistics gather(const CalibrationInput& input, const RdCalibrationOptions& options) {
  RdStatisticsOptions wanted{.sinks = options.experiment.sinks, .sample_tokens = options.sample_tokens};
  if (trains_networks(options)) wanted.pairs = pairs_of(options);
  RdStatistics statistics(input.producer, input.consumer, options.plans, wanted);
  Progress progress("running both models over " + std::to_string(count_tokens(input.text.fit)) + " tokens");
  statistics.add_all(input.text.fit, [&](double share) { progress.update(share); });
  progress.finish();
  return statistics;
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
      .run(input.text.validation,
           {.layer = {},
            .unit = [&](size_t unit, const DenseMatrix& x, const DenseMatrix& yh) { pairs.add(unit, x, yh); }},
           [&](double share) { progress.update(share); });
  progress.finish();
  return pairs;
}

std::vector<LayerMetric> weighted_metrics(const CalibrationInput& input, const RdStatistics& statistics,
                                          const RdCalibrationOptions& options) {
  int32_t first = 1;
  for (const LayerPlan& plan : options.plans) first = std::min(first, plan.exact_layers);
  const ErrorCosts costs = measure_error_costs(
      input, statistics,
      {.first = first, .on_answers = options.weigh_on_answers, .seed = options.seed, .experiment = options.experiment});
  std::vector<LayerMetric> metrics;
  for (int32_t layer = 0; layer < input.consumer.config().layers; ++layer) {
    metrics.push_back(metric_of(input.consumer, layer, statistics.layer(layer)));
    metrics.back().keys *= costs.keys[static_cast<size_t>(layer)];
    metrics.back().values *= costs.values[static_cast<size_t>(layer)];
  }
  return metrics;
}

// An encoder with one consumer's decoder.
struct RdCodec {
  const RdEncoderMaps& encoder;
  const RdDecoderMaps& decoder;
};

// What a search weighs levels against: the producer's cache as it is. Where the models' shapes differ it is none of the
// consumer's, and what it knows without any code takes its place.
struct BareCodec {
  std::unique_ptr<Encoder> encoder;
  std::unique_ptr<Decoder> decoder;
};

BareCodec bare_codec(const CodecModel& producer, const CodecModel& consumer, const RdCodec& codec) {
  if (producer.same_kv_shape(consumer)) {
    return {make_encoder(CodecId::kRaw, producer, nullptr), make_decoder(CodecId::kRaw, producer, consumer, nullptr)};
  }
  return {std::make_unique<RdEncoder>(producer, codec.encoder, Sha256Digest{}),
          std::make_unique<RdDecoder>(consumer, without_codes(codec.decoder), Sha256Digest{})};
}

// Levels on windows that nothing was fitted on; last, where asked for, the bare codec.
std::vector<CheckedCodec> measure(const CalibrationInput& input, CacheExperimentOptions options,
                                  std::span<const TokenWindow> windows, const RdCodec& codec, bool with_bare,
                                  const std::string& purpose) {
  const CodecModel producer = codec_model_of(input.producer.config());
  const CodecModel consumer = codec_model_of(input.consumer.config());
  options.exact_layer0 = exact_layer0(codec.decoder.plan);
  const RdEncoder encoder(producer, codec.encoder, {});
  const RdDecoder decoder(consumer, codec.decoder, {});
  const BareCodec bare = bare_codec(producer, consumer, codec);
  std::vector<CodecUnderCheck> codecs;
  for (int32_t level = 0; level < encoder.levels(); ++level) codecs.push_back({encoder, decoder, {.level = level}});
  if (with_bare) codecs.push_back({*bare.encoder, *bare.decoder});
  return check_codecs(input.producer, input.consumer, windows, options, codecs, purpose);
}

// One consumer's levels, against the KL of the bare codec.
RdPlanReport judge(std::span<const CheckedCodec> levels, double bare_kl, const RdCalibrationOptions& options) {
  RdPlanReport report;
  for (const auto& [level, rebuild_us] : levels) {
    const double wire_us = level.bytes_per_token * 8e-3 / options.bandwidth_gbps;
    report.score = std::max(report.score, (bare_kl - level.kl) / (wire_us + rebuild_us));
    report.rebuild_us += rebuild_us / static_cast<double>(levels.size());
    report.levels.push_back(level);
  }
  return report;
}

// What one consumer adds to a plan's report.
void blend(RdPlanReport& mean, const RdPlanReport& more, double share) {
  mean.rebuild_us += share * more.rebuild_us;
  mean.score += share * more.score;
  mean.levels.resize(more.levels.size());
  for (size_t level = 0; level < more.levels.size(); ++level) {
    mean.levels[level].bytes_per_token += share * more.levels[level].bytes_per_token;
    mean.levels[level].ratio_to_bf16 += share * more.levels[level].ratio_to_bf16;
    mean.levels[level].kl += share * more.levels[level].kl;
  }
}

// bare_kls: by consumer; of models of different shapes those of the first plan hold for all, so that no plan loses by
// what it knows without codes.
RdPlanReport judge_for_all(std::span<const CalibrationInput> inputs, const RdFit& fit,
                           const RdCalibrationOptions& options, std::vector<double>& bare_kls) {
  const LayerPlan& plan = fit.encoder.plan;
  RdPlanReport mean{
      .plan = plan, .native_share = plan.native_share(inputs.front().consumer.config().layers), .levels = {}};
  for (size_t k = 0; k < inputs.size(); ++k) {
    const CalibrationInput& input = inputs[k];
    const auto checked = measure(input, options.experiment, input.text.validation, {fit.encoder, fit.decoders[k]},
                                 /*with_bare=*/true, "measuring it");
    const bool one_shape =
        codec_model_of(input.producer.config()).same_kv_shape(codec_model_of(input.consumer.config()));
    if (bare_kls.size() == k) bare_kls.push_back(checked.back().prediction.kl);
    if (one_shape) bare_kls[k] = checked.back().prediction.kl;
    blend(mean, judge(std::span(checked).first(checked.size() - 1), bare_kls[k], options),
          1.0 / static_cast<double>(inputs.size()));
  }
  return mean;
}

ArtifactDecoder describe_decoder(const CalibrationInput& input, const RdCalibrationOptions& options) {
  ArtifactDecoder decoder;
  decoder.codec = options.codec;
  decoder.calibration = {input.text.file_sha256, count_tokens(input.text.fit), count_tokens(input.text.held_out),
                         options.seed, options.ridge};
  decoder.producer = input.producer_identity;
  decoder.producer_model = codec_model_of(input.producer.config());
  decoder.consumer = input.consumer_identity;
  decoder.model = codec_model_of(input.consumer.config());
  return decoder;
}

void describe_encoder(std::span<const ArtifactDecoder> decoders, ArtifactEncoder& encoder) {
  const ArtifactDecoder& first = decoders.front();
  encoder.codec = first.codec;
  encoder.calibration = first.calibration;
  encoder.producer = first.producer;
  encoder.model = first.producer_model;
  encoder.fitted_with = first.consumer.weights;
  for (const ArtifactDecoder& further : decoders.subspan(1)) {
    encoder.also_fitted_with.push_back(further.consumer.weights);
  }
}

// A consumer's decoder with its levels as held-out text shows them.
ArtifactDecoder finish_decoder(const CalibrationInput& input, const RdCalibrationOptions& options,
                               const RdEncoderMaps& encoder, RdDecoderMaps maps) {
  ArtifactDecoder decoder = describe_decoder(input, options);
  for (const CheckedCodec& level : measure(input, options.experiment, input.text.held_out, {encoder, maps},
                                           /*with_bare=*/false, "checking the levels on held-out text")) {
    decoder.levels.push_back(level.prediction);
  }
  decoder.prediction = decoder.levels.front();
  decoder.rd = std::move(maps);
  return decoder;
}

// What fits read of a consumer.
struct ConsumerStatistics {
  RdStatistics statistics;
  std::vector<LayerMetric> metrics;
  std::optional<UnitPairs> validation;
};

ConsumerStatistics gather_consumer(const CalibrationInput& input, const RdCalibrationOptions& options) {
  RdStatistics statistics = gather(input, options);
  std::vector<LayerMetric> metrics = weighted_metrics(input, statistics, options);
  return {std::move(statistics), std::move(metrics), validation_pairs(input, options)};
}

std::vector<ConsumerStatistics> gather_all(std::span<const CalibrationInput> inputs,
                                           const RdCalibrationOptions& options) {
  std::vector<ConsumerStatistics> all;
  for (const CalibrationInput& input : inputs) {
    SCD_CHECK(&input.producer == &inputs.front().producer && &input.text == &inputs.front().text,
              "one producer and text");
    if (input.consumer.config().layers != inputs.front().consumer.config().layers) {
      throw Error(ErrorCode::kFailedPrecondition, "consumers of one encoder must be as deep as each other: " +
                                                      std::to_string(inputs.front().consumer.config().layers) +
                                                      " and " + std::to_string(input.consumer.config().layers) +
                                                      " layers");
    }
    all.push_back(gather_consumer(input, options));
  }
  return all;
}

// Networks of one width for every consumer's decoder; of what they leave the mean over consumers.
void add_networks(std::span<const RdConsumer> consumers, std::span<const ConsumerStatistics> gathered, int64_t width,
                  const RdCalibrationOptions& options, RdFit& fit) {
  for (size_t k = 0; k < consumers.size(); ++k) {
    Progress progress("training networks of width " + std::to_string(width));
    const RdNetworkOptions wanted{
        .width = width, .seed = options.seed, .progress = [&](double share) { progress.update(share); }};
    const auto losses = fit_networks(consumers[k], *gathered[k].validation, fit.encoder, wanted, fit.decoders[k]);
    progress.finish();
    for (size_t unit = 0; unit < losses.size(); ++unit) {
      const auto share = 1.0 / static_cast<double>(consumers.size());
      fit.units[unit].left_by_regression += share * losses[unit].by_regression;
      fit.units[unit].left_with_network += share * losses[unit].with_network;
    }
  }
}

double mean_raw_bytes(std::span<const CalibrationInput> inputs, const LayerPlan& plan) {
  double sum = 0;
  for (const CalibrationInput& input : inputs) {
    sum += raw_bytes_per_token(codec_model_of(input.consumer.config()), exact_layer0(plan));
  }
  return sum / static_cast<double>(inputs.size());
}

// A further consumer's decoder.
RdDecoderMaps fit_consumer(const CalibrationInput& input, const RdEncoderMaps& encoder,
                           const RdCalibrationOptions& options) {
  if (!trains_networks(options)) return fit_rd_decoder(gather(input, options), encoder, options.ridge);
  const ConsumerStatistics gathered = gather_consumer(input, options);
  const RdConsumer consumer{input.consumer, gathered.statistics, gathered.metrics};
  RdDecoderMaps maps = fit_rd_decoder(gathered.statistics, encoder, options.ridge);
  Progress progress("training networks");
  fit_networks(consumer, *gathered.validation, encoder,
               {.width = options.network_widths.front(),
                .seed = options.seed,
                .progress = [&](double share) { progress.update(share); }},
               maps);
  progress.finish();
  return maps;
}

// Fits what it is told to and keeps the best, or the only one.
class Search {
 public:
  Search(std::span<const CalibrationInput> inputs, std::span<const ConsumerStatistics> gathered,
         const RdCalibrationOptions& options)
      : inputs_(inputs), gathered_(gathered), options_(options) {
    for (size_t k = 0; k < inputs.size(); ++k) {
      consumers_.push_back({inputs[k].consumer, gathered[k].statistics, gathered[k].metrics});
    }
  }

  void try_plan(const LayerPlan& plan, RdVariant variant) {
    if (options_.codec == CodecId::kKvtc) variant = RdVariant::kPrincipalComponents;
    Progress progress("fitting " + to_string(plan) + ", " + std::string(to_string(variant)));
    const RdFit regressions = fit_rd(consumers_, plan,
                                     {.ratios = options_.ratios,
                                      .raw_bytes = mean_raw_bytes(inputs_, plan),
                                      .ridge = options_.ridge,
                                      .variant = variant});
    progress.finish();
    for (const int64_t width : options_.network_widths) {
      RdFit fit = regressions;
      if (width > 0) add_networks(consumers_, gathered_, width, options_, fit);
      consider(std::move(fit), variant, width);
    }
  }

  RdCalibrationResult finish() {
    if (best_.decoders.empty()) {
      throw Error(ErrorCode::kInvalidArgument, "every plan runs more layers natively than --max-native-share allows");
    }
    for (size_t k = 0; k < inputs_.size(); ++k) {
      result_.decoders.push_back(finish_decoder(inputs_[k], options_, best_.encoder, std::move(best_.decoders[k])));
    }
    result_.encoder.rd = std::move(best_.encoder);
    result_.units = std::move(best_.units);
    result_.bounds = std::move(best_.bounds);
    describe_encoder(result_.decoders, result_.encoder);
    return std::move(result_);
  }

 private:
  void consider(RdFit fit, RdVariant variant, int64_t width) {
    if (options_.plans.size() * options_.variants.size() * options_.network_widths.size() > 1) {
      result_.search.push_back(judge_for_all(inputs_, fit, options_, bare_kls_));
      RdPlanReport& report = result_.search.back();
      report.variant = variant;
      report.network_width = width;
      if (report.native_share > options_.max_native_share || report.score <= best_score_) return;
      best_score_ = report.score;
    }
    result_.network_width = width;
    best_ = std::move(fit);
  }

  std::span<const CalibrationInput> inputs_;
  std::span<const ConsumerStatistics> gathered_;
  const RdCalibrationOptions& options_;
  std::vector<RdConsumer> consumers_;
  std::vector<double> bare_kls_;
  RdFit best_;
  double best_score_ = -1;
  RdCalibrationResult result_;
};

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

RdCalibrationResult calibrate_rd(std::span<const CalibrationInput> inputs, const RdCalibrationOptions& options) {
  SCD_CHECK(!options.plans.empty() && !options.variants.empty() && !options.network_widths.empty() && !inputs.empty(),
            "a plan, a variant, a width and a consumer");
  const std::vector<ConsumerStatistics> gathered = gather_all(inputs, options);
  Search search(inputs, gathered, options);
  for (const LayerPlan& plan : options.plans) {
    for (const RdVariant variant : options.variants) search.try_plan(plan, variant);
  }
  return search.finish();
}

RdCalibrationResult calibrate_rd_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                          RdCalibrationOptions options) {
  options.codec = encoder.codec;
  options.plans = {encoder.rd.plan};
  SCD_CHECK(options.network_widths.size() == 1, "one width of networks");
  const std::string problem = plan_problem(encoder.rd.plan, input.consumer.config().layers);
  if (!problem.empty()) {
    throw Error(ErrorCode::kFailedPrecondition, "the encoder's plan is of consumers of another depth: " + problem);
  }
  RdCalibrationResult result;
  result.decoders.push_back(finish_decoder(input, options, encoder.rd, fit_consumer(input, encoder.rd, options)));
  result.encoder = encoder;
  result.network_width = options.network_widths.front();
  result.decoders.front().encoder_id = encoder.id;
  return result;
}

}  // namespace scd
