// droidspeak and lora_delta between a tiny base and what was made of it.
#include "tools/scd/baseline_calibration.h"

#include <gmock/gmock.h>

#include <random>

#include "common/codec/registry.h"
#include "common/model/fingerprint.h"
#include "common/model/make_model.h"
#include "tests/unit/model/adapter_files.h"
#include "tests/unit/model/tiny_model.h"
#include "tools/scd/cache_pages.h"
#include "tools/scd/codec_check.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class BaselineCalibration : public ::testing::Test {
 protected:
  BaselineCalibration() {
    make_model({.seed = 3}, base());
    layers_ = ModelConfig::from_directory(base()).layers;
    std::mt19937 random(5);
    const auto windows = [&](int count) {
      std::vector<TokenWindow> made(static_cast<size_t>(count), TokenWindow(120));
      for (TokenWindow& window : made) {
        for (TokenId& id : window) id = static_cast<TokenId>(random() % 250);
      }
      return made;
    };
    text_ = {windows(1), {windows(3)}, {windows(3)}, {std::string(64, '7')}};
    options_.experiment.suffix = 24;
    producer_ = load({});
  }

  fs::path base() const { return folder_.path() / "base"; }
  fs::path adapter() const { return folder_.path() / "adapter"; }
  std::unique_ptr<Model> load(const std::optional<fs::path>& adapter, const fs::path& directory = {}) const {
    return std::make_unique<Model>(Model::load(
        {.directory = directory.empty() ? base() : directory, .adapter = adapter, .precision = kernels::DType::kF32}));
  }
  void adapt(const std::vector<int32_t>& layers) {
    testing::write_key_value_adapter(base(), adapter(), layers);
    consumer_ = load(adapter());
  }
  void tune() {
    make_model({.seed = 3, .perturb = 0.1, .perturb_seed = 9}, folder_.path() / "tuned");
    consumer_ = load({}, folder_.path() / "tuned");
  }
  CalibrationInput input() const {
    const auto identity = [](char digit) { return ModelIdentity{std::string(64, digit), "", "{}"}; };
    return {*producer_, *consumer_, identity('a'), identity('b'), text_};
  }
  double raw_kl() const {
    const CodecModel a = codec_model_of(producer_->config()), b = codec_model_of(consumer_->config());
    const auto encoder = make_encoder(CodecId::kRaw, a, nullptr);
    const auto decoder = make_decoder(CodecId::kRaw, a, b, nullptr);
    const CodecUnderCheck raw{*encoder, *decoder};
    return check_codecs(*producer_, *consumer_, held_out_text(input(), options_.experiment), options_.experiment,
                        std::span(&raw, 1), "raw")[0]
        .prediction.kl;
  }

  testing::TemporaryFolder folder_;
  int32_t layers_ = 0;
  CalibrationText text_;
  BaselineOptions options_;
  std::unique_ptr<Model> producer_;
  std::unique_ptr<Model> consumer_;
};

// What enters layer 0 is the same in both models: its keys and values come out as the consumer's own.
TEST_F(BaselineCalibration, LoraDeltaGivesTheConsumersOwnKeysAndValuesWhereNothingDrifts) {
  adapt({0, 1});
  const BaselineResult result = calibrate_lora_delta(input(), LoraAdapter(adapter()), options_);
  const CodecModel model = codec_model_of(producer_->config());
  const auto encoder = make_encoder(CodecId::kLoraDelta, model, &result.encoder);
  const auto decoder = make_decoder(CodecId::kLoraDelta, model, model, &result.decoder);
  const std::vector<TokenId> ids = testing::some_ids(40);
  DenseMatrix attention_input;
  const auto layer0 = [&](const Model& of) {
    SequenceCache own(of.config().kv_shape(of.precision()), 48);
    const SequenceChunk chunk{&own.pages, 0, ids};
    ForwardPass pass(of, own.cache, std::span(&chunk, 1));
    pass.keep_attention_input(true);
    pass.run_layer();
    attention_input = DenseMatrix(40, of.config().hidden);
    std::copy_n(pass.attention_input().row<float>(0), attention_input.values.size(), attention_input.values.data());
    return read_rows(own.cache, own.pages, 0, {0, 40});
  };
  const KeysValues expected = layer0(*consumer_);
  const KeysValues source = layer0(*producer_);
  ByteBuffer payload;
  LayerChunk chunk;
  chunk.keys = source.keys.view();
  chunk.values = source.values.view();
  chunk.attention_input = std::as_const(attention_input).view();
  encoder->encode(chunk, {}, payload);
  DecodedLayer out;
  ASSERT_TRUE(decoder->decode({.layer = 0, .first_position = 0, .tokens = 40}, payload, out).ok());
  // BF16 has eight bits of mantissa: of values of a few units, and of the codes.
  const auto largest = [](const std::vector<float>& values) {
    return std::abs(*std::ranges::max_element(values, {}, [](float value) { return std::abs(value); }));
  };
  const float key_scale = largest(expected.keys.values), value_scale = largest(expected.values.values);
  EXPECT_LT(testing::largest_difference(out.keys, expected.keys.values), 0.01f * key_scale);
  EXPECT_LT(testing::largest_difference(out.values, expected.values.values), 0.01f * value_scale);
  EXPECT_GT(testing::largest_difference(source.keys.values, expected.keys.values), 0.1f * key_scale);
  EXPECT_GT(testing::largest_difference(source.values.values, expected.values.values), 0.1f * value_scale);
}

TEST_F(BaselineCalibration, LoraDeltaOfAnAdaptedLastLayerLosesAlmostNothing) {
  adapt({layers_ - 1});
  BaselineResult result = calibrate_lora_delta(input(), LoraAdapter(adapter()), options_);
  EXPECT_LT(result.decoder.prediction.kl, 0.02 * raw_kl());
  EXPECT_LT(result.decoder.prediction.ratio_to_bf16, 1.0);
  write_artifact(folder_.path() / "artifact", result.encoder, result.decoder);
  EXPECT_EQ(load_decoder(folder_.path() / "artifact", result.decoder.consumer.weights), result.decoder);
}

TEST_F(BaselineCalibration, DroidSpeakKeepsTheSpanWithTheLeastKl) {
  tune();
  options_.critical_layers = 2;
  const BaselineResult result = calibrate_droidspeak(input(), options_);
  ASSERT_EQ(std::ssize(result.search), layers_ - 2);
  const auto best =
      std::ranges::min_element(result.search, {}, [](const SpanReport& report) { return report.measured.kl; });
  EXPECT_EQ(result.decoder.plan.units[result.decoder.plan.unit_at(best->span.first_layer)], best->span);
  EXPECT_EQ(result.encoder.plan, result.decoder.plan);
  EXPECT_LT(result.decoder.prediction.kl, raw_kl());
  // Two layers of keys and values, less one residual stream.
  const CodecModel model = codec_model_of(consumer_->config());
  const double payload_headers = 8.0 * (layers_ - 2) / 80;
  const double expected = static_cast<double>(4 * (layers_ - 3) * model.kv_width() + 2 * model.hidden);
  EXPECT_NEAR(result.decoder.prediction.bytes_per_token, expected, 1 + payload_headers);
}

TEST_F(BaselineCalibration, DroidSpeakTakesTheSpanThatIsGivenAndServesAFurtherConsumer) {
  tune();
  options_.spans = {{1, layers_ - 1, true}};
  BaselineResult result = calibrate_droidspeak(input(), options_);
  EXPECT_TRUE(result.search.empty());
  EXPECT_EQ(result.decoder.plan, (LayerPlan{1, {{1, layers_ - 1, true}}, false}));
  write_artifact(folder_.path() / "artifact", result.encoder, result.decoder);
  consumer_ = load({});
  CalibrationInput same = input();
  same.consumer_identity.weights = std::string(64, 'c');
  const ArtifactEncoder encoder = load_encoder(folder_.path() / "artifact");
  const BaselineResult second = calibrate_droidspeak_consumer(same, encoder, options_);
  EXPECT_LT(second.decoder.prediction.kl, 1e-4);  // one model for both: only the rounding of what was sent
  add_decoder(folder_.path() / "artifact", second.decoder);
  EXPECT_EQ(list_decoders(folder_.path() / "artifact").size(), 2U);
}

TEST_F(BaselineCalibration, SpansThatAreNoneOfTheModelAreRefused) {
  tune();
  for (const CodedUnit& span : {CodedUnit{0, 2, true}, CodedUnit{2, layers_, true}, CodedUnit{layers_ + 3, 1, true}}) {
    options_.spans = {span};
    try {
      calibrate_droidspeak(input(), options_);
      FAIL() << "accepted a span from " << span.first_layer;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr("no span of this model"));
    }
  }
  options_.spans.clear();
  options_.critical_layers = layers_;
  EXPECT_THROW(calibrate_droidspeak(input(), options_), Error);
}

}  // namespace
}  // namespace scd
