#include "tools/scd/calibration.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "common/codec/calibration/latent_fit.h"
#include "common/codec/calibration/rounding.h"
#include "common/codec/model_difference.h"
#include "common/codec/payload.h"
#include "common/codec/scd_codec.h"
#include "common/log/progress.h"
#include "tools/scd/codec_check.h"
#include "tools/scd/pair_statistics.h"

namespace scd {
namespace {

// What both ways of calibrating share: the statistics of the pair and the fits that read them.
class Fitter {
 public:
  Fitter(const CalibrationInput& input, const CalibrationOptions& options)
      : input_(input),
        options_(options),
        producer_(codec_model_of(input.producer.config())),
        consumer_(codec_model_of(input.consumer.config())),
        algebra_(input.consumer.device()),
        fitted_(input.producer, input.consumer, statistics_options(options.reservoir_tokens, options.seed)),
        validation_(input.producer, input.consumer,
                    statistics_options(std::max<int64_t>(options.reservoir_tokens / 8, 64), options.seed + 1000)) {
    require_same_kv_shape(producer_, consumer_, "calibration");
    Progress progress("running both models over " + std::to_string(count_tokens(input.text.fit)) + " tokens");
    // Validation text is about as much per window; its share of the bar is that of its windows.
    const std::vector<TokenWindow> validation = one_of_each_context(input.text.validation).windows;
    const auto fit_windows = static_cast<double>(input.text.fit.size());
    const double fit_share = fit_windows / (fit_windows + static_cast<double>(validation.size()));
    const PairStatisticsOptions defaults;
    add_all(fitted_, input.text.fit, defaults.batch_tokens, [&](double share) { progress.update(share * fit_share); });
    add_all(validation_, validation, defaults.batch_tokens,
            [&](double share) { progress.update(fit_share + share * (1 - fit_share)); });
    progress.finish();
  }

  const CodecModel& producer() const { return producer_; }
  const CodecModel& consumer() const { return consumer_; }
  int32_t layers() const { return producer_.layers; }

  JoinedMoment fitted(const SecondMoment& moment) const { return {moment.sum(), producer_.head_dim}; }
  const LayerStatistics& statistics(int32_t layer) const { return fitted_.layers()[static_cast<size_t>(layer)]; }

  void fit_reuse(int32_t layer, const RankCaps& ranks, ScdLayerEncoder& encoder, ScdLayerDecoder& decoder) const {
    LatentFit keys = fit_shared_latent(fitted(statistics(layer).keys), ranks.key, options_.ridge, algebra_);
    LatentFit values = fit_shared_latent(fitted(statistics(layer).values), ranks.value, options_.ridge, algebra_);
    encoder = {std::move(keys.encoder), std::move(values.encoder), {}};
    decoder = {std::move(keys.decoder), std::move(values.decoder), {}};
  }

  void measure_reuse(int32_t layer, const ScdLayerEncoder& encoder, const ScdLayerDecoder& decoder,
                     LayerReport& report) const {
    const LayerStatistics& held_out = validation_.layers()[static_cast<size_t>(layer)];
    report.key_loss = relative_loss(fitted(held_out.keys), encoder.key, decoder.key);
    report.value_loss = relative_loss(fitted(held_out.values), encoder.value, decoder.value);
  }

  DenseMatrix fit_hidden_encoder(int32_t layer, int64_t rank) const {
    const DenseMatrix producer_inputs = statistics(layer).attention.first();
    const DenseMatrix consumer_inputs = statistics(layer).attention.second();
    SecondMoment joined(producer_.hidden + consumer_.hidden);
    joined.add_joined(producer_inputs.view(), consumer_inputs.view());
    DenseMatrix encoder = fit_shared_latent({joined.sum(), producer_.hidden}, rank, options_.ridge, algebra_).encoder;
    round_to_bf16(encoder.values);
    return encoder;
  }

  PredictorFit fit_patch(int32_t layer, const DenseMatrix& hidden_encoder,
                         const std::function<void(double)>& progress) const {
    const PairReservoir& samples = statistics(layer).attention;
    const PairReservoir& held_out = validation_.layers()[static_cast<size_t>(layer)].attention;
    const DenseMatrix codes = codes_of(samples.first(), hidden_encoder);
    const DenseMatrix targets = samples.second();
    const DenseMatrix held_out_codes = codes_of(held_out.first(), hidden_encoder);
    const DenseMatrix held_out_targets = held_out.second();
    PredictorOptions options = options_.predictor;
    options.ridge = options_.ridge;
    options.algebra = algebra_;
    options.network.device = input_.consumer.device();
    options.network.seed = options_.seed + static_cast<uint64_t>(layer);
    options.network.progress = progress;
    return fit_predictor({codes, targets, held_out_codes, held_out_targets}, options);
  }

  const Algebra& algebra() const { return algebra_; }
  CalibrationRecord record() const { return record_of(input_.text, options_); }

 private:
  PairStatisticsOptions statistics_options(int64_t tokens, uint64_t seed) const {
    const int64_t token_bytes = int64_t{2} * (producer_.hidden + consumer_.hidden) * producer_.layers;
    return {.sinks = options_.experiment.sinks,
            .reservoir_tokens = std::clamp<int64_t>(options_.reservoir_bytes / token_bytes, 64, tokens),
            .seed = seed};
  }

  const CalibrationInput& input_;
  const CalibrationOptions& options_;
  CodecModel producer_;
  CodecModel consumer_;
  Algebra algebra_;
  PairStatistics fitted_;
  PairStatistics validation_;
};

std::vector<int32_t> all_layers(int32_t count) {
  std::vector<int32_t> layers(static_cast<size_t>(count));
  std::iota(layers.begin(), layers.end(), 0);
  return layers;
}

struct Codec {
  ScdEncoder encoder;
  ScdDecoder decoder;
};

Codec make_codec(const Fitter& fitter, const CalibrationResult& result) {
  return {ScdEncoder(fitter.producer(), result.encoder.layers, {}),
          ScdDecoder(fitter.consumer(), result.decoder.layers, {})};
}

// Maps of the pool's layers as Patch, by layer.
struct PatchMaps {
  std::vector<ScdLayerEncoder> encoders;
  std::vector<ScdLayerDecoder> decoders;
};

// Fits Patch for each layer of the pool and puts what it gives into the mix.
PatchMaps fit_pool(const Fitter& fitter, std::span<const int32_t> pool, int64_t rank, CalibrationResult& result,
                   LayerMix& mix) {
  PatchMaps patched{result.encoder.layers, result.decoder.layers};
  Progress progress("training the predictors of " + std::to_string(pool.size()) + " layers");
  for (size_t i = 0; i < pool.size(); ++i) {
    const auto layer = static_cast<size_t>(pool[i]);
    DenseMatrix hidden = fitter.fit_hidden_encoder(pool[i], rank);
    PredictorFit fit = fitter.fit_patch(pool[i], hidden, [&](double share) {
      progress.update((static_cast<double>(i) + share) / static_cast<double>(pool.size()));
    });
    result.layers[layer].patch_loss = fit.loss;
    patched.encoders[layer] = {{}, {}, std::move(hidden)};
    patched.decoders[layer] = {{}, {}, std::move(fit.predictor)};
  }
  progress.finish();
  const ScdEncoder encoder(fitter.producer(), patched.encoders, {});
  const ScdDecoder decoder(fitter.consumer(), patched.decoders, {});
  std::vector<int32_t> in_order(pool.begin(), pool.end());
  std::sort(in_order.begin(), in_order.end());
  mix.rebuild(LayerSource::kPatch, encoder, decoder, in_order);
  return patched;
}

std::vector<int32_t> best_layers(const std::vector<LayerGain>& gains, int32_t count) {
  std::vector<int32_t> layers;
  for (const LayerGain& gain : gains) {
    if (static_cast<int32_t>(layers.size()) < count) layers.push_back(gain.layer);
  }
  return layers;
}

void choose_patch_layers(const CalibrationInput& input, const CalibrationOptions& options, const Fitter& fitter,
                         const RankCaps& ranks, CalibrationResult& result) {
  const int32_t layers = fitter.layers();
  const ScoredText text = validation_sample(input, options.experiment);
  LayerMix mix(input.producer, input.consumer, text.windows, options.experiment, text.scored);
  const Codec reuse = make_codec(fitter, result);
  mix.rebuild(LayerSource::kReuse, reuse.encoder, reuse.decoder, all_layers(layers));
  result.reuse_kl = mix.mean_kl(std::vector<LayerSource>(static_cast<size_t>(layers), LayerSource::kReuse));
  if (options.patch_layers == 0) return;

  Progress ranking("ranking layers by the KL each would gain");
  const std::vector<LayerGain> gains = rank_layers(mix, layers, options.experiment.exact_layer0, result.reuse_kl,
                                                   [&](double share) { ranking.update(share); });
  ranking.finish();
  for (const LayerGain& gain : gains) result.layers[static_cast<size_t>(gain.layer)].gain = gain.gain;
  const std::vector<int32_t> pool = best_layers(gains, std::max(options.pool, options.patch_layers));
  PatchMaps patched = fit_pool(fitter, pool, ranks.hidden, result, mix);

  const auto cost = [&](std::span<const int32_t> chosen) {
    std::vector<ScdLayerEncoder> maps = result.encoder.layers;
    for (const int32_t layer : chosen) maps[static_cast<size_t>(layer)] = patched.encoders[static_cast<size_t>(layer)];
    return payload_bytes_per_token(maps, fitter.producer(), options.experiment);
  };
  const bool fixed = options.patch_layers > 0;
  const GreedyOptions greedy{layers, fixed ? options.patch_layers : options.pool, !fixed};
  Progress searching("searching patch layers");
  result.steps =
      search_greedily(mix, pool, cost, greedy, result.reuse_kl, [&](double share) { searching.update(share); });
  searching.finish();
  const int32_t budget = fixed ? static_cast<int32_t>(result.steps.size())
                               : choose_budget(result.steps, result.reuse_kl, cost({}), options.max_kl);
  for (int32_t k = 0; k < budget; ++k) {
    const auto layer = static_cast<size_t>(result.steps[static_cast<size_t>(k)].layer);
    result.encoder.layers[layer] = std::move(patched.encoders[layer]);
    result.decoder.layers[layer] = std::move(patched.decoders[layer]);
    result.layers[layer].patched = true;
  }
}

// The one look at held-out text.
void predict(const CalibrationInput& input, const CalibrationOptions& options, const Fitter& fitter,
             const std::optional<Codec>& reuse, CalibrationResult& result) {
  const Codec codec = make_codec(fitter, result);
  std::vector<CodecUnderCheck> codecs{{codec.encoder, codec.decoder}};
  if (reuse) codecs.push_back({reuse->encoder, reuse->decoder});
  const std::vector<CheckedCodec> checked =
      check_codecs(input.producer, input.consumer, held_out_text(input, options.experiment), options.experiment, codecs,
                   "checking the codec on held-out text");
  result.decoder.prediction = checked.front().prediction;
  if (reuse) result.held_out_reuse_kl = checked.back().prediction.kl;
  result.meets_max_kl = options.max_kl <= 0 || result.decoder.prediction.kl_upper <= options.max_kl;
}

void describe(const CalibrationInput& input, const Fitter& fitter, CalibrationResult& result) {
  result.encoder.producer = input.producer_identity;
  result.encoder.model = fitter.producer();
  result.encoder.calibration = fitter.record();
  result.encoder.fitted_with = input.consumer_identity.weights;
  result.decoder.producer = input.producer_identity;
  result.decoder.consumer = input.consumer_identity;
  result.decoder.producer_model = fitter.producer();
  result.decoder.model = fitter.consumer();
  result.decoder.calibration = fitter.record();
}

void require_ranks(const RankCaps& ranks, const CodecModel& model) {
  const auto require_within = [](int32_t rank, int32_t most, const char* what) {
    if (rank >= 1 && rank <= most) return;
    throw Error(ErrorCode::kInvalidArgument, std::string("rank of ") + what + " " + std::to_string(rank) +
                                                 ": expected 1 to " + std::to_string(most));
  };
  require_within(ranks.key, model.head_dim, "keys");
  require_within(ranks.value, model.head_dim, "values");
  require_within(ranks.hidden, std::min<int32_t>(model.hidden, UINT16_MAX), "the hidden state");
}

}  // namespace

RankCaps default_ranks(const RankCaps& wanted, const CodecModel& model) {
  return {wanted.key > 0 ? wanted.key : std::max(1, model.head_dim * 3 / 4),
          wanted.value > 0 ? wanted.value : model.head_dim,
          wanted.hidden > 0 ? wanted.hidden : std::max(1, model.hidden * 3 / 4)};
}

CalibrationRecord record_of(const CalibrationText& text, const CalibrationOptions& options) {
  return {text.file_sha256, count_tokens(text.fit), count_tokens(text.held_out.windows), options.seed, options.ridge};
}

void require_same_calibration(const ArtifactEncoder& there, const ModelIdentity& producer,
                              const ModelIdentity& consumer, const CalibrationText& text,
                              const CalibrationOptions& options) {
  std::string differs;
  const auto compare = [&](bool same, const char* what) {
    if (!same) differs += (differs.empty() ? "" : ", ") + std::string(what);
  };
  const CalibrationRecord wanted = record_of(text, options);
  const CalibrationRecord& record = there.calibration;
  compare(check_compatible(there, producer).ok(), "producer");
  compare(there.fitted_with == consumer.weights, "consumer");
  compare(record.text_sha256 == wanted.text_sha256, "text");
  compare(record.tokens == wanted.tokens, "number of tokens");
  compare(record.held_out_tokens == wanted.held_out_tokens, "held-out text");
  compare(record.seed == wanted.seed, "seed");
  compare(record.ridge == wanted.ridge, "ridge");
  const RankCaps ranks = default_ranks(options.rank, there.model);
  const auto patched = static_cast<int32_t>(there.patch_layers().size());
  const auto codable = static_cast<int32_t>(there.layers.size()) - (options.experiment.exact_layer0 ? 1 : 0);
  compare(std::ranges::all_of(there.layers,
                              [&](const ScdLayerEncoder& maps) {
                                return maps.is_patch() ? maps.hidden.rows == ranks.hidden
                                                       : maps.key.rows == ranks.key && maps.value.rows == ranks.value;
                              }),
          "ranks");
  compare(options.patch_layers < 0 || std::min(options.patch_layers, codable) == patched, "number of Patch layers");
  if (!differs.empty()) {
    throw Error(ErrorCode::kAlreadyExists, "it holds the encoder of another calibration (other " + differs + ")");
  }
}

double payload_bytes_per_token(const std::vector<ScdLayerEncoder>& layers, const CodecModel& model,
                               const CacheExperimentOptions& experiment) {
  double bytes = 0;
  for (size_t layer = experiment.exact_layer0 ? 1 : 0; layer < layers.size(); ++layer) {
    const ScdLayerEncoder& maps = layers[layer];
    const int64_t values = maps.is_patch() ? maps.hidden.rows : (maps.key.rows + maps.value.rows) * model.kv_heads;
    bytes += static_cast<double>(2 * values) +
             static_cast<double>(kPayloadHeaderBytes) / static_cast<double>(experiment.chunk_tokens);
  }
  return bytes;
}

CalibrationResult calibrate(const CalibrationInput& input, const CalibrationOptions& options) {
  const CodecModel model = codec_model_of(input.producer.config());
  const RankCaps ranks = default_ranks(options.rank, model);
  require_ranks(ranks, model);
  const Fitter fitter(input, options);
  CalibrationResult result;
  const auto layers = static_cast<size_t>(fitter.layers());
  result.encoder.layers.resize(layers);
  result.decoder.layers.resize(layers);
  result.layers.resize(layers);
  for (size_t i = 0; i < layers; ++i) {
    const auto layer = static_cast<int32_t>(i);
    fitter.fit_reuse(layer, ranks, result.encoder.layers[i], result.decoder.layers[i]);
    fitter.measure_reuse(layer, result.encoder.layers[i], result.decoder.layers[i], result.layers[i]);
  }
  std::optional<Codec> reuse = make_codec(fitter, result);
  choose_patch_layers(input, options, fitter, ranks, result);
  describe(input, fitter, result);
  predict(input, options, fitter, reuse, result);
  return result;
}

CalibrationResult calibrate_consumer(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                     const CalibrationOptions& options) {
  const Fitter fitter(input, options);
  CalibrationResult result;
  describe(input, fitter, result);
  result.encoder = encoder;
  result.decoder.encoder_id = encoder.id;
  result.decoder.layers.resize(encoder.layers.size());
  result.layers.resize(encoder.layers.size());
  Progress progress("fitting the decoder");
  for (size_t i = 0; i < encoder.layers.size(); ++i) {
    const auto layer = static_cast<int32_t>(i);
    const ScdLayerEncoder& maps = encoder.layers[i];
    ScdLayerDecoder& decoder = result.decoder.layers[i];
    if (maps.is_patch()) {
      PredictorFit fit = fitter.fit_patch(layer, maps.hidden, {});
      decoder.predictor = std::move(fit.predictor);
      result.layers[i].patched = true;
      result.layers[i].patch_loss = fit.loss;
    } else {
      decoder.key =
          fit_decoder(fitter.fitted(fitter.statistics(layer).keys), maps.key, options.ridge, fitter.algebra());
      decoder.value =
          fit_decoder(fitter.fitted(fitter.statistics(layer).values), maps.value, options.ridge, fitter.algebra());
      fitter.measure_reuse(layer, maps, decoder, result.layers[i]);
    }
    progress.update(static_cast<double>(i + 1) / static_cast<double>(encoder.layers.size()));
  }
  progress.finish();
  predict(input, options, fitter, std::nullopt, result);
  return result;
}

}  // namespace scd
