#include "tools/scd/rd_search.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "common/log/progress.h"
#include "tools/scd/rd_networks.h"

namespace scd {
namespace {

// Layer 0 costs nothing where any layer is exact.
bool exact_layer0(const LayerPlan& plan) { return plan.exact_layers > 0; }

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

double mean_raw_bytes(std::span<const CalibrationInput> inputs, const LayerPlan& plan) {
  double sum = 0;
  for (const CalibrationInput& input : inputs) {
    sum += raw_bytes_per_token(codec_model_of(input.consumer.config()), exact_layer0(plan));
  }
  return sum / static_cast<double>(inputs.size());
}

}  // namespace

std::vector<CheckedCodec> measure_levels(const CalibrationInput& input, CacheExperimentOptions options,
                                         const ScoredText& text, const RdCodec& codec, bool with_bare,
                                         const std::string& purpose) {
  const CodecModel producer = codec_model_of(input.producer.config());
  const CodecModel consumer = codec_model_of(input.consumer.config());
  options.exact_layer0 = exact_layer0(codec.decoder.plan);
  const RdEncoder encoder(producer, codec.encoder, {}, input.producer.device());
  const RdDecoder decoder(consumer, codec.decoder, {}, input.consumer.device(), input.consumer.precision());
  const BareCodec bare = bare_codec(producer, consumer, codec);
  std::vector<CodecUnderCheck> codecs;
  for (int32_t level = 0; level < encoder.levels(); ++level) codecs.push_back({encoder, decoder, {.level = level}});
  if (with_bare) codecs.push_back({*bare.encoder, *bare.decoder});
  return check_codecs(input.producer, input.consumer, text, options, codecs, purpose);
}

RdSearch::RdSearch(std::span<const CalibrationInput> inputs, std::span<const RdEvidence> evidence,
                   const RdCalibrationOptions& options, std::vector<CalibrationStage>& stages)
    : inputs_(inputs), evidence_(evidence), options_(options), stages_(stages) {
  for (size_t k = 0; k < inputs.size(); ++k) {
    consumers_.push_back({inputs[k].consumer, evidence[k].statistics, evidence[k].metrics});
  }
}

void RdSearch::try_plan(const LayerPlan& plan, RdVariant variant, double anchor_share) {
  if (options_.codec == CodecId::kKvtc) variant = RdVariant::kPrincipalComponents;
  Progress progress("fitting " + to_string(plan) + ", " + std::string(to_string(variant)));
  const RdFitOptions wanted{.ratios = options_.ratios,
                            .raw_bytes = mean_raw_bytes(inputs_, plan),
                            .ridge = options_.ridge,
                            .variant = variant,
                            .anchor_share = anchor_share};
  RdFit regressions = timed(stages_, "fits", [&] { return fit_rd(consumers_, plan, wanted); });
  progress.finish();
  for (const int64_t& width : options_.network_widths) {
    const bool last = &width == &options_.network_widths.back();
    RdFit fit = last ? std::move(regressions) : regressions;  // gigabytes
    if (width > 0) add_networks(width, fit);
    consider(std::move(fit), {.plan = plan,
                              .variant = variant,
                              .network_width = width,
                              .anchor_share = anchor_share,
                              .native_share = plan.native_share(inputs_.front().consumer.config().layers),
                              .levels = {}});
  }
}

// Networks of one width for every consumer's decoder; of what they leave the mean over consumers.
void RdSearch::add_networks(int64_t width, RdFit& fit) const {
  for (size_t k = 0; k < consumers_.size(); ++k) {
    Progress progress("training networks of width " + std::to_string(width));
    const RdNetworkOptions wanted{
        .width = width, .seed = options_.seed, .progress = [&](double share) { progress.update(share); }};
    const auto losses = timed(stages_, "networks", [&] {
      return fit_networks(consumers_[k], *evidence_[k].network_validation, fit.encoder, wanted, fit.decoders[k]);
    });
    progress.finish();
    for (size_t unit = 0; unit < losses.size(); ++unit) {
      const auto share = 1.0 / static_cast<double>(consumers_.size());
      fit.units[unit].left_by_regression += share * losses[unit].by_regression;
      fit.units[unit].left_with_network += share * losses[unit].with_network;
    }
  }
}

void RdSearch::consider(RdFit fit, RdPlanReport report) {
  const int64_t width = report.network_width;
  if (searches(options_)) {
    report = timed(stages_, "comparing plans", [&] { return judge_for_all(fit, std::move(report)); });
    reports_.push_back(std::move(report));
    const RdPlanReport& judged = reports_.back();
    if (judged.native_share > options_.max_native_share || judged.score <= best_score_) return;
    best_score_ = judged.score;
  }
  best_ = {std::move(fit), width};
}

RdPlanReport RdSearch::judge_for_all(const RdFit& fit, RdPlanReport report) {
  for (size_t k = 0; k < inputs_.size(); ++k) {
    const CalibrationInput& input = inputs_[k];
    const auto checked =
        measure_levels(input, options_.experiment, evidence_[k].validation, {fit.encoder, fit.decoders[k]},
                       /*with_bare=*/true, "measuring it");
    const bool one_shape =
        codec_model_of(input.producer.config()).same_kv_shape(codec_model_of(input.consumer.config()));
    if (bare_kls_.size() == k) bare_kls_.push_back(checked.back().prediction.kl);
    if (one_shape) bare_kls_[k] = checked.back().prediction.kl;
    blend(report, judge(std::span(checked).first(checked.size() - 1), bare_kls_[k], options_),
          1.0 / static_cast<double>(inputs_.size()));
  }
  return report;
}

RdSearch::Best RdSearch::take_best() {
  if (!best_.fit.decoders.empty()) return std::move(best_);
  throw Error(ErrorCode::kInvalidArgument, "every plan runs more layers natively than --max-native-share allows");
}

}  // namespace scd
