#include "tools/scd/rd_calibration.h"

#include <algorithm>
#include <utility>

#include "common/log/progress.h"
#include "tools/scd/rd_evidence.h"
#include "tools/scd/rd_networks.h"
#include "tools/scd/rd_search.h"

namespace scd {
namespace {

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
       measure_levels(input, options.experiment, held_out_text(input, options.experiment), {encoder, maps},
                      /*with_bare=*/false, "checking the levels on held-out text")) {
    decoder.levels.push_back(level.prediction);
  }
  decoder.prediction = decoder.levels.front();
  decoder.rd = std::move(maps);
  return decoder;
}

// A further consumer's decoder.
RdDecoderMaps fit_consumer(const CalibrationInput& input, const RdEncoderMaps& encoder,
                           const RdCalibrationOptions& options, std::vector<CalibrationStage>& stages) {
  const RdFitOptions fit{.ratios = {}, .ridge = options.ridge, .anchor_share = options.anchor_shares.front()};
  if (!trains_networks(options) && fit.anchor_share >= 1) {  // nothing asks what errors cost
    const RdStatistics statistics =
        timed(stages, "both models over the text", [&] { return gather_statistics(input, options); });
    return timed(stages, "fits", [&] { return fit_rd_decoder({input.consumer, statistics, {}}, encoder, fit); });
  }
  const RdEvidence evidence = gather_evidence(input, options, stages);
  const RdConsumer consumer{input.consumer, evidence.statistics, evidence.metrics};
  RdDecoderMaps maps = timed(stages, "fits", [&] { return fit_rd_decoder(consumer, encoder, fit); });
  if (!trains_networks(options)) return maps;
  Progress progress("training networks");
  const RdNetworkOptions wanted{.width = options.network_widths.front(),
                                .seed = options.seed,
                                .progress = [&](double share) { progress.update(share); }};
  (void)timed(stages, "networks",
              [&] { return fit_networks(consumer, *evidence.network_validation, encoder, wanted, maps); });
  progress.finish();
  return maps;
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
  SCD_CHECK(!options.plans.empty() && !options.variants.empty() && !options.network_widths.empty() &&
                !options.anchor_shares.empty() && !inputs.empty(),
            "a plan, a variant, a width, a share and a consumer");
  RdCalibrationResult result;
  const std::vector<RdEvidence> evidence = gather_evidence(inputs, options, result.stages);
  RdSearch search(inputs, evidence, options, result.stages);
  for (const LayerPlan& plan : options.plans) {
    for (const RdVariant variant : options.variants) {
      for (const double share : options.anchor_shares) search.try_plan(plan, variant, share);
    }
  }
  RdSearch::Best best = search.take_best();
  for (size_t k = 0; k < inputs.size(); ++k) {
    result.decoders.push_back(timed(result.stages, "checking levels", [&] {
      return finish_decoder(inputs[k], options, best.fit.encoder, std::move(best.fit.decoders[k]));
    }));
  }
  result.search = search.take_reports();
  result.network_width = best.network_width;
  result.encoder.rd = std::move(best.fit.encoder);
  result.units = std::move(best.fit.units);
  result.bounds = std::move(best.fit.bounds);
  describe_encoder(result.decoders, result.encoder);
  return result;
}

RdCalibrationResult calibrate_rd_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                          RdCalibrationOptions options) {
  options.codec = encoder.codec;
  options.plans = {encoder.rd.plan};
  SCD_CHECK(options.network_widths.size() == 1 && options.anchor_shares.size() == 1, "one decoder to fit");
  const std::string problem = plan_problem(encoder.rd.plan, input.consumer.config().layers);
  if (!problem.empty()) {
    throw Error(ErrorCode::kFailedPrecondition, "the encoder's plan is of consumers of another depth: " + problem);
  }
  RdCalibrationResult result;
  RdDecoderMaps maps = fit_consumer(input, encoder.rd, options, result.stages);
  result.decoders.push_back(timed(result.stages, "checking levels",
                                  [&] { return finish_decoder(input, options, encoder.rd, std::move(maps)); }));
  result.encoder = encoder;
  result.network_width = options.network_widths.front();
  result.decoders.front().encoder_id = encoder.id;
  return result;
}

}  // namespace scd
