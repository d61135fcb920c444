#include "tools/scd/rd_calibration.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "common/log/progress.h"
#include "tools/scd/codec_check.h"
#include "tools/scd/rd_costs.h"
#include "tools/scd/token_rate_codec.h"

namespace scd {
namespace {

// Layer 0 costs nothing where any layer is exact.
bool exact_layer0(const LayerPlan& plan) { return plan.exact_layers > 0; }

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
  const ErrorCosts costs = measure_error_costs(
      input.consumer,
      options.weigh_on_answers ? validation_sample(input, options.experiment)
                               : last_tokens_of(one_of_each_context(input.text.validation).windows, options.experiment),
      statistics, {.first = first, .seed = options.seed, .experiment = options.experiment});
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
  std::optional<RateQueries> token_rate = std::nullopt;
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

// Levels on text that nothing was fitted on; last, where asked for, the bare codec.
std::vector<CheckedCodec> measure(const CalibrationInput& input, CacheExperimentOptions options, const ScoredText& text,
                                  const RdCodec& codec, bool with_bare, const std::string& purpose) {
  const CodecModel producer = codec_model_of(input.producer.config());
  const CodecModel consumer = codec_model_of(input.consumer.config());
  options.exact_layer0 = exact_layer0(codec.decoder.plan);
  const RdEncoder encoder(producer, codec.encoder, {});
  const RdDecoder decoder(consumer, codec.decoder, {});
  const BareCodec bare = bare_codec(producer, consumer, codec);
  std::unique_ptr<TokenRateCodec> rated;
  if (codec.token_rate) {
    const TokenRates::Args rates{input.producer, input.consumer, codec.encoder.plan, options, *codec.token_rate};
    rated = std::make_unique<TokenRateCodec>(TokenRateCodec::Args{encoder, decoder, codec.encoder.quantiser, rates});
    rated->learn(input.text.fit);
  }
  const Encoder& sender = rated ? rated->encoder() : static_cast<const Encoder&>(encoder);
  const Decoder& receiver = rated ? rated->decoder() : static_cast<const Decoder&>(decoder);
  std::vector<CodecUnderCheck> codecs;
  for (int32_t level = 0; level < encoder.levels(); ++level) codecs.push_back({sender, receiver, {.level = level}});
  if (rated) codecs.front().prepare = [&rated](const TokenWindow& window) { rated->set_window(window); };
  if (with_bare) codecs.push_back({*bare.encoder, *bare.decoder});
  return check_codecs(input.producer, input.consumer, text, options, codecs, purpose);
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

bool searches(const RdCalibrationOptions& options) { return options.plans.size() * options.variants.size() > 1; }

// What fits and searches read of a consumer.
struct ConsumerStatistics {
  RdStatistics statistics;
  ScoredText validation;  // empty without a search
  std::vector<LayerMetric> metrics;
};

// bare_kls: by consumer; of models of different shapes those of the first plan hold for all, so that no plan loses by
// what it knows without codes.
RdPlanReport judge_for_all(std::span<const CalibrationInput> inputs, std::span<const ConsumerStatistics> gathered,
                           const RdFit& fit, RdVariant variant, const RdCalibrationOptions& options,
                           std::vector<double>& bare_kls) {
  const LayerPlan& plan = fit.encoder.plan;
  RdPlanReport mean{.plan = plan,
                    .variant = variant,
                    .native_share = plan.native_share(inputs.front().consumer.config().layers),
                    .levels = {}};
  for (size_t k = 0; k < inputs.size(); ++k) {
    const CalibrationInput& input = inputs[k];
    const auto checked = measure(input, options.experiment, gathered[k].validation,
                                 {fit.encoder, fit.decoders[k], token_rate_of(variant)},
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
  decoder.calibration = {input.text.file_sha256, count_tokens(input.text.fit),
                         count_tokens(input.text.held_out.windows), options.seed, options.ridge};
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
  for (const CheckedCodec& level :
       measure(input, options.experiment, held_out_text(input, options.experiment), {encoder, maps},
               /*with_bare=*/false, "checking the levels on held-out text")) {
    decoder.levels.push_back(level.prediction);
  }
  decoder.prediction = decoder.levels.front();
  decoder.rd = std::move(maps);
  return decoder;
}

std::vector<ConsumerStatistics> gather_all(std::span<const CalibrationInput> inputs,
                                           const RdCalibrationOptions& options, std::vector<CalibrationStage>& stages) {
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
    RdStatistics statistics = timed(stages, "both models over the text", [&] { return gather(input, options); });
    std::vector<LayerMetric> metrics =
        timed(stages, "what errors cost", [&] { return weighted_metrics(input, statistics, options); });
    ScoredText validation;
    if (searches(options)) validation = validation_text(input, options.experiment);
    all.push_back({std::move(statistics), std::move(validation), std::move(metrics)});
  }
  return all;
}

struct Candidate {
  const LayerPlan& plan;
  RdVariant variant;
};

std::vector<Candidate> candidates_of(const RdCalibrationOptions& options) {
  std::vector<Candidate> candidates;
  for (const LayerPlan& plan : options.plans) {
    for (const RdVariant variant : options.variants) {
      candidates.push_back({plan, options.codec == CodecId::kKvtc ? RdVariant::kPrincipalComponents : variant});
    }
  }
  return candidates;
}

// The producer's attention in a layer weighs tokens of the consumer's layer.
void require_one_depth(std::span<const CalibrationInput> inputs, std::span<const RdVariant> variants) {
  for (const RdVariant variant : variants) {
    const auto queries = token_rate_of(variant);
    if (queries != RateQueries::kPrompt && queries != RateQueries::kChunk) continue;
    const int32_t producer = inputs.front().producer.config().layers,
                  consumer = inputs.front().consumer.config().layers;
    if (producer == consumer) continue;
    throw Error(ErrorCode::kFailedPrecondition, "--variants " + std::string(to_string(variant)) +
                                                    ": for models that are as deep as each other, these have " +
                                                    std::to_string(producer) + " and " + std::to_string(consumer) +
                                                    " layers");
  }
}

double mean_raw_bytes(std::span<const CalibrationInput> inputs, const LayerPlan& plan) {
  double sum = 0;
  for (const CalibrationInput& input : inputs) {
    sum += raw_bytes_per_token(codec_model_of(input.consumer.config()), exact_layer0(plan));
  }
  return sum / static_cast<double>(inputs.size());
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

RdCalibrationResult calibrate_rd(std::span<const CalibrationInput> inputs, const RdCalibrationOptions& options) {
  SCD_CHECK(!options.plans.empty() && !inputs.empty(), "a plan and a consumer");
  require_one_depth(inputs, options.variants);
  RdCalibrationResult result;
  const std::vector<ConsumerStatistics> gathered = gather_all(inputs, options, result.stages);
  std::vector<RdConsumer> consumers;
  for (size_t k = 0; k < inputs.size(); ++k) {
    consumers.push_back({inputs[k].consumer, gathered[k].statistics, gathered[k].metrics});
  }
  RdFit best;
  double best_score = -1;
  std::vector<double> bare_kls;
  for (const Candidate& candidate : candidates_of(options)) {
    Progress progress("fitting " + to_string(candidate.plan) + ", " + std::string(to_string(candidate.variant)));
    const RdFitOptions fit_options{.ratios = options.ratios,
                                   .raw_bytes = mean_raw_bytes(inputs, candidate.plan),
                                   .ridge = options.ridge,
                                   .variant = candidate.variant};
    RdFit fit = timed(result.stages, "fits", [&] { return fit_rd(consumers, candidate.plan, fit_options); });
    progress.finish();
    if (searches(options)) {
      result.search.push_back(timed(result.stages, "comparing plans", [&] {
        return judge_for_all(inputs, gathered, fit, candidate.variant, options, bare_kls);
      }));
      const RdPlanReport& report = result.search.back();
      if (token_rate_of(candidate.variant)) continue;
      if (report.native_share > options.max_native_share || report.score <= best_score) continue;
      best_score = report.score;
    }
    best = std::move(fit);
  }
  if (best.decoders.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "every plan runs more layers natively than --max-native-share allows");
  }
  for (size_t k = 0; k < inputs.size(); ++k) {
    result.decoders.push_back(timed(result.stages, "checking levels", [&] {
      return finish_decoder(inputs[k], options, best.encoder, std::move(best.decoders[k]));
    }));
  }
  result.encoder.rd = std::move(best.encoder);
  result.units = std::move(best.units);
  result.bounds = std::move(best.bounds);
  describe_encoder(result.decoders, result.encoder);
  return result;
}

RdCalibrationResult calibrate_rd_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                          RdCalibrationOptions options) {
  options.codec = encoder.codec;
  options.plans = {encoder.rd.plan};
  const std::string problem = plan_problem(encoder.rd.plan, input.consumer.config().layers);
  if (!problem.empty()) {
    throw Error(ErrorCode::kFailedPrecondition, "the encoder's plan is of consumers of another depth: " + problem);
  }
  RdCalibrationResult result;
  const RdStatistics statistics =
      timed(result.stages, "both models over the text", [&] { return gather(input, options); });
  RdDecoderMaps maps =
      timed(result.stages, "fits", [&] { return fit_rd_decoder(statistics, encoder.rd, options.ridge); });
  result.decoders.push_back(timed(result.stages, "checking levels",
                                  [&] { return finish_decoder(input, options, encoder.rd, std::move(maps)); }));
  result.encoder = encoder;
  result.decoders.front().encoder_id = encoder.id;
  return result;
}

}  // namespace scd
