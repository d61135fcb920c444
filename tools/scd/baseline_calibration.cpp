#include "tools/scd/baseline_calibration.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "common/codec/droidspeak_codec.h"
#include "common/codec/model_difference.h"
#include "common/codec/registry.h"
#include "tools/scd/codec_check.h"

namespace scd {
namespace {

constexpr int32_t kDefaultCriticalShare = 4;  // a quarter of the layers

// What both parts say of models and text; tokens: what was chosen by.
void describe(const CalibrationInput& input, CodecId codec, int64_t tokens, uint64_t seed, BaselineResult& result) {
  ArtifactDecoder& decoder = result.decoder;
  decoder.codec = codec;
  decoder.calibration = {input.text.file_sha256, tokens, count_tokens(input.text.held_out.windows), seed, 0.0};
  decoder.producer = input.producer_identity;
  decoder.producer_model = codec_model_of(input.producer.config());
  decoder.consumer = input.consumer_identity;
  decoder.model = codec_model_of(input.consumer.config());
  ArtifactEncoder& encoder = result.encoder;
  encoder.codec = codec;
  encoder.calibration = decoder.calibration;
  encoder.producer = decoder.producer;
  encoder.model = decoder.producer_model;
  encoder.fitted_with = input.consumer_identity.weights;
}

void check_held_out(const CalibrationInput& input, const BaselineOptions& options, BaselineResult& result) {
  const CodecId id = result.decoder.codec;
  const auto encoder = make_encoder(id, result.decoder.producer_model, &result.encoder);
  const auto decoder = make_decoder(id, result.decoder.producer_model, result.decoder.model, &result.decoder);
  const CodecUnderCheck codec{*encoder, *decoder};
  result.decoder.prediction =
      check_codecs(input.producer, input.consumer, held_out_text(input, options.experiment), options.experiment,
                   std::span(&codec, 1), "checking the codec on held-out text")
          .front()
          .prediction;
}

// Layer 0 from the token ids, the span from its residual stream, all others one by one.
LayerPlan plan_of(const CodedUnit& span, int32_t layers) {
  LayerPlan plan{1, {}, /*predicted=*/false};
  for (int32_t layer = 1; layer < std::min(span.first_layer, layers); ++layer) {
    plan.units.push_back({.first_layer = layer});
  }
  plan.units.push_back({span.first_layer, span.layers, true});
  for (int32_t layer = span.end(); layer < layers; ++layer) plan.units.push_back({.first_layer = layer});
  const std::string problem = plan_problem(plan, layers);
  if (!problem.empty()) throw Error(ErrorCode::kInvalidArgument, "no span of this model: " + problem);
  return plan;
}

std::vector<LayerPlan> candidates(const BaselineOptions& options, int32_t layers) {
  std::vector<LayerPlan> plans;
  for (const CodedUnit& span : options.spans) plans.push_back(plan_of(span, layers));
  if (!plans.empty()) return plans;
  const int32_t length =
      options.critical_layers > 0 ? options.critical_layers : std::max(1, layers / kDefaultCriticalShare);
  if (length >= layers) {
    throw Error(ErrorCode::kInvalidArgument,
                std::to_string(length) + " critical layers; layer 0 is exact, so that a model of " +
                    std::to_string(layers) + " layers has at most " + std::to_string(layers - 1));
  }
  for (int32_t first = 1; first + length <= layers; ++first) plans.push_back(plan_of({first, length}, layers));
  return plans;
}

CodedUnit span_of(const LayerPlan& plan) { return *std::ranges::find(plan.units, true, &CodedUnit::residual); }

std::vector<SpanReport> measure_spans(const CalibrationInput& input, const BaselineOptions& options,
                                      std::span<const LayerPlan> plans) {
  const CodecModel producer = codec_model_of(input.producer.config());
  const CodecModel consumer = codec_model_of(input.consumer.config());
  std::vector<std::unique_ptr<DroidSpeakEncoder>> encoders;
  std::vector<std::unique_ptr<DroidSpeakDecoder>> decoders;
  std::vector<CodecUnderCheck> codecs;
  for (const LayerPlan& plan : plans) {
    encoders.push_back(std::make_unique<DroidSpeakEncoder>(producer, plan, Sha256Digest{}));
    decoders.push_back(std::make_unique<DroidSpeakDecoder>(producer, consumer, plan, Sha256Digest{}));
    codecs.push_back({*encoders.back(), *decoders.back()});
  }
  const std::vector<CheckedCodec> measured =
      check_codecs(input.producer, input.consumer, validation_text(input, options.experiment), options.experiment,
                   codecs, "measuring " + std::to_string(plans.size()) + " spans of critical layers");
  std::vector<SpanReport> reports;
  for (size_t i = 0; i < plans.size(); ++i) reports.push_back({span_of(plans[i]), measured[i].prediction});
  return reports;
}

// [rank, columns of the transpose] = scale * B transposed
DenseMatrix scaled_transpose(const LoraFactors& factors, int64_t out) {
  DenseMatrix up(factors.rank, out);
  for (int64_t row = 0; row < out; ++row) {
    for (int64_t component = 0; component < factors.rank; ++component) {
      up.at(component, row) = factors.scale * factors.b[static_cast<size_t>(row * factors.rank + component)];
    }
  }
  return up;
}

// One module's factors for both sides; false when the adapter leaves it as it is.
bool take_factors(const LoraAdapter& adapter, const std::string& module, const CodecModel& model, DenseMatrix& down,
                  DenseMatrix& up) {
  auto factors = adapter.factors(module, model.kv_width(), model.hidden);
  if (!factors) return false;
  down = DenseMatrix(factors->rank, model.hidden);
  up = scaled_transpose(*factors, model.kv_width());
  down.values = std::move(factors->a);
  return true;
}

}  // namespace

BaselineResult calibrate_droidspeak(const CalibrationInput& input, const BaselineOptions& options) {
  const CodecModel consumer = codec_model_of(input.consumer.config());
  require_same_kv_shape(codec_model_of(input.producer.config()), consumer, "calibration");
  const std::vector<LayerPlan> plans = candidates(options, consumer.layers);
  BaselineResult result;
  size_t best = 0;
  if (plans.size() > 1) {
    result.search = measure_spans(input, options, plans);
    const auto kl = [](const SpanReport& report) { return report.measured.kl; };
    best = static_cast<size_t>(std::ranges::min_element(result.search, {}, kl) - result.search.begin());
  }
  result.encoder.plan = result.decoder.plan = plans[best];
  describe(input, CodecId::kDroidSpeak, plans.size() > 1 ? count_tokens(input.text.validation.windows) : 0,
           options.seed, result);
  check_held_out(input, options, result);
  return result;
}

BaselineResult calibrate_droidspeak_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                             const BaselineOptions& options) {
  BaselineResult result;
  describe(input, CodecId::kDroidSpeak, 0, options.seed, result);
  result.encoder = encoder;
  result.decoder.encoder_id = encoder.id;
  result.decoder.plan = encoder.plan;
  check_held_out(input, options, result);
  return result;
}

BaselineResult calibrate_lora_delta(const CalibrationInput& input, const LoraAdapter& adapter,
                                    const BaselineOptions& options) {
  const CodecModel model = codec_model_of(input.consumer.config());
  BaselineResult result;
  result.encoder.lora.resize(static_cast<size_t>(model.layers));
  result.decoder.lora.resize(result.encoder.lora.size());
  for (size_t layer = 0; layer < result.encoder.lora.size(); ++layer) {
    const std::string attention = "model.layers." + std::to_string(layer) + ".self_attn.";
    LoraDeltaEncoderLayer& down = result.encoder.lora[layer];
    LoraDeltaDecoderLayer& up = result.decoder.lora[layer];
    const bool keys = take_factors(adapter, attention + "k_proj", model, down.key, up.key);
    take_factors(adapter, attention + "v_proj", model, down.value, up.value);
    if (keys && input.consumer.config().qk_norm) {
      throw Error(ErrorCode::kFailedPrecondition,
                  "codec lora_delta: this model normalises its keys, and the adapter changes " + attention +
                      "k_proj before that: its term cannot be added to keys of the producer");
    }
  }
  describe(input, CodecId::kLoraDelta, 0, options.seed, result);
  check_held_out(input, options, result);
  return result;
}

}  // namespace scd
