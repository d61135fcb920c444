#include "tools/scd/rd_calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "common/codec/calibration/predictor_fit.h"
#include "common/codec/calibration/rate_fit.h"
#include "common/codec/model_difference.h"
#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "common/log/progress.h"
#include "kernels/linear.h"
#include "tools/scd/layer_mix.h"
#include "tools/scd/noise_codec.h"
#include "tools/scd/rd_statistics.h"

namespace scd {
namespace {

// Noise energy of a measurement, as a share of a layer's own variance: far above rounding, near enough to linear.
constexpr double kNoiseShare = 0.02;

// Counts what an encoder makes at one level.
class CountingEncoder final : public Encoder {
 public:
  CountingEncoder(const Encoder& counted, int32_t level) : counted_(counted), level_(level) {}
  const Sha256Digest& id() const override { return counted_.id(); }
  bool needs_attention_input(int32_t layer) const override { return counted_.needs_attention_input(layer); }
  void encode(const LayerChunk& chunk, const RankCaps&, ByteBuffer& out) const override {
    const size_t before = out.size();
    counted_.encode(chunk, {.level = level_}, out);
    bytes_ += out.size() - before;
  }
  size_t bytes() const { return bytes_; }

 private:
  const Encoder& counted_;
  const int32_t level_;
  mutable size_t bytes_ = 0;
};

// What an error in keys and values costs, by layer: KL per unit of energy in the layer's metric.
struct Weights {
  std::vector<double> keys;
  std::vector<double> values;
};

class RdFitter {
 public:
  RdFitter(const CalibrationInput& input, const RdCalibrationOptions& options)
      : input_(input),
        options_(options),
        producer_(codec_model_of(input.producer.config())),
        consumer_(codec_model_of(input.consumer.config())),
        statistics_(input.producer, input.consumer, options.experiment.sinks, options.sample_tokens) {
    require_same_kv_shape(producer_, consumer_, "calibration");
  }

  const CodecModel& producer() const { return producer_; }
  const CodecModel& consumer() const { return consumer_; }
  // Layer 0 is not coded where the consumer computes it.
  int32_t first_coded() const { return options_.experiment.exact_layer0 ? 1 : 0; }

  void gather() {
    Progress progress("running both models over " + std::to_string(count_tokens(input_.text.fit)) + " tokens");
    statistics_.add_all(input_.text.fit, [&](double share) { progress.update(share); });
    progress.finish();
    for (int32_t layer = 0; layer < consumer_.layers; ++layer) {
      metrics_.push_back(metric_of(input_.consumer, layer, statistics_.layers()[static_cast<size_t>(layer)]));
    }
  }

  // Each layer in turn, its keys and then its values, all others true.
  Weights measure_weights() const {
    const auto layers = static_cast<size_t>(consumer_.layers);
    std::vector<LayerNoise> in_keys(layers), in_values(layers);
    for (int32_t layer = first_coded(); layer < consumer_.layers; ++layer) {
      const auto [keys, values] = variances(layer);
      in_keys[static_cast<size_t>(layer)].keys = static_cast<float>(std::sqrt(kNoiseShare * keys));
      in_values[static_cast<size_t>(layer)].values = static_cast<float>(std::sqrt(kNoiseShare * values));
    }
    Progress progress("measuring what errors cost, layer by layer");
    LayerMix mix(input_.consumer, input_.consumer, input_.text.validation, options_.experiment);
    std::vector<int32_t> all(layers);
    std::iota(all.begin(), all.end(), 0);
    const auto raw = make_encoder(CodecId::kRaw, consumer_, nullptr);
    mix.rebuild(LayerSource::kReuse, *raw, *make_noise_decoder(consumer_, in_keys, options_.seed), all);
    mix.rebuild(LayerSource::kPatch, *raw, *make_noise_decoder(consumer_, in_values, options_.seed + 1), all);
    Weights weights{std::vector<double>(layers), std::vector<double>(layers)};
    std::vector<LayerSource> sources(layers, LayerSource::kTruth);
    for (size_t layer = static_cast<size_t>(first_coded()); layer < layers; ++layer) {
      // The metrics have trace 1: noise of variance v in every value has energy v.
      sources[layer] = LayerSource::kReuse;
      weights.keys[layer] = mix.mean_kl(sources) / std::pow(double{in_keys[layer].keys}, 2);
      sources[layer] = LayerSource::kPatch;
      weights.values[layer] = mix.mean_kl(sources) / std::pow(double{in_values[layer].values}, 2);
      sources[layer] = LayerSource::kTruth;
      progress.update(static_cast<double>(layer + 1) / static_cast<double>(layers));
    }
    progress.finish();
    return weights;
  }

  std::vector<RateFit> fit(const Weights& weights) const {
    std::vector<RateFit> fits;
    Progress progress("fitting " + std::to_string(consumer_.layers) + " layers");
    const int64_t width = consumer_.kv_width();
    for (int32_t layer = 0; layer < consumer_.layers; ++layer) {
      const auto index = static_cast<size_t>(layer);
      const LayerMetric& metric = metrics_[index];
      Eigen::MatrixXd weighted = Eigen::MatrixXd::Zero(2 * width, 2 * width);
      // A layer that is never coded is fitted all the same, in the plain metric: others may ask for it.
      const bool coded = layer >= first_coded();
      weighted.topLeftCorner(width, width) = (coded ? weights.keys[index] : 1.0) * metric.keys;
      weighted.bottomRightCorner(width, width) = (coded ? weights.values[index] : 1.0) * metric.values;
      fits.push_back(
          fit_rate({statistics_.layers()[index].joined.sum(), 2 * producer_.kv_width()}, weighted, options_.ridge));
      RateFit& fit = fits.back();
      round_to_bf16(fit.encoder.map.values);
      round_to_bf16(fit.decoder.map.values);
      progress.update(static_cast<double>(layer + 1) / consumer_.layers);
    }
    progress.finish();
    return fits;
  }

  RdQuantiserSettings quantiser(std::span<const RateFit> fits) const {
    RdQuantiserSettings settings;
    std::vector<DenseMatrix> codes;
    std::vector<ComponentSample> samples;
    for (size_t layer = 0; layer < fits.size(); ++layer) {
      settings.deviations.push_back(fits[layer].deviations);
      codes.push_back(sample_codes(layer, fits[layer].encoder));
    }
    for (size_t layer = static_cast<size_t>(first_coded()); layer < fits.size(); ++layer) {
      for (int64_t row = 0; row < codes[layer].rows; row += 3) {
        samples.push_back({{codes[layer].view().row<float>(row), static_cast<size_t>(codes[layer].columns)},
                           fits[layer].deviations[static_cast<size_t>(row)]});
      }
    }
    train_tables(samples, settings);
    const double raw_bits = 32.0 * static_cast<double>((consumer_.layers - first_coded()) * consumer_.kv_width());
    for (const double ratio : options_.ratios) settings.steps.push_back(step_for(settings, raw_bits / ratio));
    return settings;
  }

 private:
  // Mean variance of a value of the consumer's keys and of its values.
  std::pair<double, double> variances(int32_t layer) const {
    const Eigen::MatrixXd& sum = statistics_.layers()[static_cast<size_t>(layer)].joined.sum();
    const int64_t width = consumer_.kv_width();
    const int64_t last = sum.rows() - 1;
    const double count = sum(last, last);
    const auto mean_variance = [&](int64_t first) {
      double total = 0;
      for (int64_t i = first; i < first + width; ++i) total += sum(i, i) / count - std::pow(sum(i, last) / count, 2);
      return total / static_cast<double>(width);
    };
    const int64_t own = 2 * producer_.kv_width();
    return {mean_variance(own), mean_variance(own + width)};
  }

  DenseMatrix sample_codes(size_t layer, const RdLayerEncoder& encoder) const {
    const DenseMatrix& sample = statistics_.layers()[layer].sample;
    DenseMatrix codes(encoder.map.rows, sample.rows);
    for (int64_t row = 0; row < codes.rows; ++row) {
      std::fill_n(codes.view().row<float>(row), codes.columns, encoder.offset[static_cast<size_t>(row)]);
    }
    kernels::gemm_f32(
        {.a = encoder.map.view(), .b = sample.view(), .c = codes.view(), .transpose_b = true, .beta = 1.0f});
    return codes;
  }

  // The step at which all coded layers cost so many bits a token, by the tables.
  double bits_at(const RdQuantiserSettings& settings, std::span<const double> table_bits, double step) const {
    double bits = 0;
    for (size_t layer = static_cast<size_t>(first_coded()); layer < settings.deviations.size(); ++layer) {
      for (const float deviation : settings.deviations[layer]) {
        const auto ratio = static_cast<float>(deviation / step);
        if (ratio < kRdSmallestRatio) break;
        // Above the last table's range every octave costs a bit.
        const float over = std::max(0.0f, std::log2(ratio / rd_ratio_of(kRdTables - 1)));
        bits += table_bits[rd_table_of(ratio)] + over;
      }
    }
    return bits;
  }

  float step_for(const RdQuantiserSettings& settings, double wanted_bits) const {
    std::vector<double> table_bits(kRdTables);
    for (size_t table = 0; table < kRdTables; ++table) {
      for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
        const double share =
            settings.frequencies.at(static_cast<int64_t>(table), static_cast<int64_t>(symbol)) / double{kRansTotal};
        if (share > 0) table_bits[table] -= share * std::log2(share);
      }
    }
    double low = -60, high = 60;  // log2 of the step
    for (int i = 0; i < 60; ++i) {
      const double middle = (low + high) / 2;
      (bits_at(settings, table_bits, std::exp2(middle)) > wanted_bits ? low : high) = middle;
    }
    return static_cast<float>(std::exp2(high));
  }

  const CalibrationInput& input_;
  const RdCalibrationOptions& options_;
  CodecModel producer_;
  CodecModel consumer_;
  RdStatistics statistics_;
  std::vector<LayerMetric> metrics_;
};

// Every level on text that nothing was fitted on.
std::vector<CodecPrediction> measure_levels(const CalibrationInput& input, const RdCalibrationOptions& options,
                                            const RdFitter& fitter, const RdCalibrationResult& result) {
  LayerMix mix(input.producer, input.consumer, input.text.held_out, options.experiment);
  const RdDecoder decoder(fitter.consumer(), result.decoder.rd_layers, result.decoder.rd_quantiser, {});
  std::vector<int32_t> coded;
  for (int32_t layer = fitter.first_coded(); layer < fitter.consumer().layers; ++layer) coded.push_back(layer);
  const std::vector<LayerSource> sources(static_cast<size_t>(fitter.consumer().layers), LayerSource::kReuse);
  const double raw_bytes = 4.0 * static_cast<double>(std::ssize(coded) * fitter.producer().kv_width());
  std::vector<CodecPrediction> levels;
  Progress progress("checking the levels on held-out text");
  const auto count = static_cast<int32_t>(result.decoder.rd_quantiser.steps.size());
  const RdEncoder encoder(fitter.producer(), result.encoder.rd_layers, result.encoder.rd_quantiser, {});
  for (int32_t level = 0; level < count; ++level) {
    const CountingEncoder counting(encoder, level);
    mix.rebuild(LayerSource::kReuse, counting, decoder, coded);
    const double bytes = static_cast<double>(counting.bytes()) / static_cast<double>(mix.handed_over_tokens());
    levels.push_back({bytes, raw_bytes / bytes, mix.mean_kl(sources)});
    progress.update(static_cast<double>(level + 1) / count);
  }
  progress.finish();
  return levels;
}

void describe_calibration(const CalibrationInput& input, const RdCalibrationOptions& options, const RdFitter& fitter,
                          RdCalibrationResult& result) {
  const CalibrationRecord record{input.text.file_sha256, count_tokens(input.text.fit),
                                 count_tokens(input.text.held_out), options.seed, options.ridge};
  result.encoder.codec = result.decoder.codec = CodecId::kRd;
  result.encoder.calibration = result.decoder.calibration = record;
  result.encoder.producer = result.decoder.producer = input.producer_identity;
  result.encoder.model = result.decoder.producer_model = fitter.producer();
  result.encoder.fitted_with = input.consumer_identity.weights;
  result.decoder.consumer = input.consumer_identity;
  result.decoder.model = fitter.consumer();
}

}  // namespace

RdCalibrationResult calibrate_rd(const CalibrationInput& input, const RdCalibrationOptions& options) {
  RdFitter fitter(input, options);
  fitter.gather();
  const Weights weights = fitter.measure_weights();
  std::vector<RateFit> fits = fitter.fit(weights);
  RdCalibrationResult result;
  result.encoder.rd_quantiser = result.decoder.rd_quantiser = fitter.quantiser(fits);
  for (size_t layer = 0; layer < fits.size(); ++layer) {
    RateFit& fit = fits[layer];
    result.layers.push_back({weights.keys[layer], weights.values[layer], fit.unpredictable / fit.energy});
    result.encoder.rd_layers.push_back(std::move(fit.encoder));
    result.decoder.rd_layers.push_back(std::move(fit.decoder));
  }
  result.decoder.levels = measure_levels(input, options, fitter, result);
  result.decoder.prediction = result.decoder.levels.front();
  describe_calibration(input, options, fitter, result);
  return result;
}

}  // namespace scd
