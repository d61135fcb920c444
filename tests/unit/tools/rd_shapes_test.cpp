// Pairs of models that differ in depth, width or RoPE.
#include <gmock/gmock.h>

#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "tests/support/derived_model.h"
#include "tests/unit/tools/calibration_models.h"
#include "tools/scd/codec_check.h"
#include "tools/scd/rd_calibration.h"

namespace scd {
namespace {

using ::testing::HasSubstr;

class RdShapes : public ::testing::Test {
 protected:
  RdShapes() { models_.make("base", {.seed = 3, .dtype = "float32"}); }

  void derive(const std::string& name, testing::Derivation derivation) {
    testing::DerivedModel(models_.path("base"), derivation).write(models_.path(name));
  }
  int32_t layers(const std::string& name) { return models_.model(name).config().layers; }

  RdCalibrationOptions options(const RdPlanOptions& plan, const std::string& consumer) {
    RdCalibrationOptions options;
    options.plans = {make_plan(plan, layers(consumer))};
    options.ratios = {8, 32};
    options.experiment.suffix = 24;
    return options;
  }

  // KL on held-out text where no codes are used: of the cache of means, or of what anchors tell.
  double kl_without_codes(const CalibrationInput& input, const RdCalibrationResult& result) {
    const RdEncoder encoder(result.encoder.model, result.encoder.rd, {});
    const RdDecoder decoder(result.decoders[0].model, without_codes(result.decoders[0].rd), {});
    CacheExperimentOptions experiment;
    experiment.suffix = 24;
    const CodecUnderCheck codec[] = {{encoder, decoder}};
    return check_codecs(input.producer, input.consumer, held_out_text(input, experiment), experiment, codec, "means")[0]
        .prediction.kl;
  }

  testing::CalibrationModels models_{"scd_rd_shapes_"};
};

TEST_F(RdShapes, AModelInAnotherShapeAnswersAsItself) {
  derive("other", {.twice_as_deep = true, .twice_as_wide = true});
  const CalibrationInput input = models_.input("base", "other");
  CacheExperiment base(input.producer, input.producer, 256), other(input.consumer, input.consumer, 256);
  base.set_prompt(models_.text.fit[0], {});
  other.set_prompt(models_.text.fit[0], {});
  for (const double kl : kl_divergence(base.run({}), other.run({}))) EXPECT_LT(kl, 1e-4);
}

// One model in two shapes: whatever the one holds tells what the other does.
TEST_F(RdShapes, WhatTheProducerTellsInAnotherShapeIsAllThereIs) {
  derive("deep", {.twice_as_deep = true});
  derive("wide", {.twice_as_wide = true});
  derive("both", {.twice_as_deep = true, .twice_as_wide = true});
  for (const auto& [producer, consumer] :
       {std::pair("base", "deep"), std::pair("deep", "base"), std::pair("base", "wide"), std::pair("wide", "base"),
        std::pair("base", "both"), std::pair("both", "base")}) {
    const CalibrationInput input = models_.input(producer, consumer);
    for (const bool predicted : {false, true}) {
      const RdPlanOptions plan{.exact_layers = 1, .group = 2, .native = {}, .predicted = predicted};
      const RdCalibrationResult result = calibrate_rd(input, options(plan, consumer));
      const std::string pair = std::string(producer) + " to " + consumer + (predicted ? ", predicted" : "");
      for (const RdUnitReport& unit : result.units) EXPECT_LT(unit.unpredictable, 0.01 * unit.energy) << pair;
      EXPECT_LT(result.decoders[0].levels[0].kl, 0.05 * kl_without_codes(input, result)) << pair;
      EXPECT_LT(result.decoders[0].levels[1].bytes_per_token, result.decoders[0].levels[0].bytes_per_token) << pair;
    }
  }
}

TEST_F(RdShapes, AProducerInAnotherShapeIsAsGoodAsTheModelItself) {
  derive("both", {.twice_as_deep = true, .twice_as_wide = true});
  const RdCalibrationOptions wanted = options({.exact_layers = 1, .group = 2, .native = {}}, "base");
  const RdCalibrationResult itself = calibrate_rd(models_.input("base", "base"), wanted);
  const RdCalibrationResult other = calibrate_rd(models_.input("both", "base"), wanted);
  for (size_t level = 0; level < 2; ++level) {
    EXPECT_NEAR(other.decoders[0].levels[level].kl, itself.decoders[0].levels[level].kl,
                0.2 * itself.decoders[0].levels[level].kl);
  }
}

TEST_F(RdShapes, ANativeSpanStartsFromTheProducersStreamAtItsDepth) {
  derive("deep", {.twice_as_deep = true});
  for (const auto& [producer, consumer] : {std::pair("base", "deep"), std::pair("deep", "base")}) {
    const CalibrationInput input = models_.input(producer, consumer);
    const int32_t count = layers(consumer);
    const RdPlanOptions plan{.exact_layers = 1, .group = 2, .native = {{count / 2, count - 2}}, .predicted = true};
    const RdCalibrationResult result = calibrate_rd(input, options(plan, consumer));
    EXPECT_LT(result.decoders[0].levels[0].kl, 0.05 * kl_without_codes(input, result)) << producer;
  }
}

// Nothing in common but the tokens, which are so few that a linear map of one model's embeddings gives the other's.
TEST_F(RdShapes, UnlikeModelsGoThroughFromEndToEnd) {
  models_.text.fit = testing::random_windows(40, 120, 8, 60);
  models_.text.held_out.windows = testing::random_windows(6, 120, 9, 60);
  models_.make("unlike", {.shape = "small", .seed = 11, .rope_theta = 500000.0});
  for (const CodecId codec : {CodecId::kRd, CodecId::kKvtc}) {
    for (const auto& [producer, consumer] : {std::pair("base", "unlike"), std::pair("unlike", "base")}) {
      const CalibrationInput input = models_.input(producer, consumer);
      RdCalibrationOptions wanted =
          options({.exact_layers = 1, .group = 3, .native = {}, .predicted = false}, consumer);
      wanted.codec = codec;
      wanted.ridge = 1e-3;
      RdCalibrationResult result = calibrate_rd(input, wanted);
      RdCalibrationResult again = calibrate_rd(input, wanted);
      const std::string name = std::string(to_string(codec)) + producer;
      write_artifact(models_.path(name), result.encoder, result.decoders);
      write_artifact(models_.path(name + "again"), again.encoder, again.decoders);
      EXPECT_EQ(result.encoder.id, again.encoder.id);
      const std::vector<CodecPrediction>& found = result.decoders[0].levels;
      EXPECT_LT(found[1].bytes_per_token, found[0].bytes_per_token) << name;
      EXPECT_LT(found[0].kl, kl_without_codes(input, result)) << name;

      const ArtifactEncoder encoder = load_encoder(models_.path(name));
      const ArtifactDecoder decoder = load_decoder(models_.path(name), input.consumer_identity.weights);
      EXPECT_EQ(encoder.rd, result.encoder.rd);
      EXPECT_EQ(encoder.rd.sources.size(), encoder.rd.plan.units.size());
      EXPECT_EQ(decoder, result.decoders[0]);
      EXPECT_NO_THROW(make_encoder(codec, encoder.model, &encoder));
      EXPECT_NO_THROW(make_decoder(codec, encoder.model, decoder.model, &decoder));
    }
  }
}

TEST_F(RdShapes, ASearchComparesPlansWithoutARawCache) {
  derive("deep", {.twice_as_deep = true});
  RdCalibrationOptions wanted = options({.exact_layers = 1, .group = 2, .native = {}}, "deep");
  wanted.plans.push_back(make_plan({.exact_layers = 3, .group = 5, .native = {}}, layers("deep")));
  const RdCalibrationResult result = calibrate_rd(models_.input("base", "deep"), wanted);
  ASSERT_EQ(result.search.size(), 2U);
  for (const RdPlanReport& report : result.search) EXPECT_GT(report.score, 0) << to_string(report.plan);
}

TEST_F(RdShapes, MoreBitsThanCodesHoldAreRefused) {
  derive("both", {.twice_as_deep = true, .twice_as_wide = true});
  RdCalibrationOptions wanted = options({.exact_layers = 1, .group = 2, .native = {}}, "both");
  wanted.ratios = {2, 8};
  try {
    calibrate_rd(models_.input("base", "both"), wanted);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("--ratios"));
  }
}

TEST_F(RdShapes, CodecsOfOneShapeAndConsumersOfTwoDepthsAreRefused) {
  derive("deep", {.twice_as_deep = true});
  const CodecModel base = codec_model_of(models_.model("base").config());
  const CodecModel deep = codec_model_of(models_.model("deep").config());
  try {
    make_decoder(CodecId::kRaw, base, deep, nullptr);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("producer has layers 4, consumer 8"));
  }
  const std::vector<CalibrationInput> inputs{models_.input("base", "base"), models_.input("base", "deep")};
  try {
    calibrate_rd(inputs, options({.exact_layers = 1, .group = 2, .native = {}}, "base"));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
    EXPECT_THAT(error.what(), HasSubstr("as deep as each other: 4 and 8 layers"));
  }
}

}  // namespace
}  // namespace scd
