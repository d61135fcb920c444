#include "tools/scd/made_up_artifact.h"

#include <gmock/gmock.h>

#include <limits>

#include "common/codec/key_rotation.h"
#include "common/codec/registry.h"
#include "kernels/elementwise.h"
#include "tests/unit/tools/calibration_models.h"

namespace scd {
namespace {

class MadeUpArtifact : public ::testing::Test {
 protected:
  void SetUp() override {
    const MakeModelOptions base{.shape = "small", .tokenizer_json = ""};
    MakeModelOptions tuned = base;
    tuned.perturb = 0.02;
    options_ = {models_.make("base", base), models_.make("tuned", tuned), models_.path("artifact")};
  }

  testing::CalibrationModels models_{"scd-made-up-"};
  MadeUpArtifactOptions options_;
};

TEST_F(MadeUpArtifact, FitsThePairAndSendsAboutWhatItSays) {
  options_.ratios = {16, 64};
  const LayerPlan plan = write_made_up_artifact(options_);
  const ArtifactEncoder encoder = load_encoder(options_.out);
  const ArtifactDecoder decoder = load_decoder(options_.out, models_.identity("tuned").weights);
  ASSERT_TRUE(check_compatible(decoder, models_.identity("base"), models_.identity("tuned")).ok());
  EXPECT_EQ(decoder.levels.size(), 2U);
  EXPECT_GT(decoder.levels[0].kl_upper, 1e6);  // no loss constraint is met
  const auto encodes = make_encoder(CodecId::kRd, encoder.model, &encoder);
  const auto decodes = make_decoder(CodecId::kRd, encoder.model, decoder.model, &decoder);
  const int64_t tokens = 128, width = encoder.model.kv_width() * plan.units[0].layers;
  DenseMatrix keys(tokens, width), values(tokens, width), anchor(tokens, encoder.model.hidden);
  kernels::fill_normal(keys.view(), 1, 1.0f);
  kernels::fill_normal(values.view(), 2, 1.0f);
  kernels::fill_normal(anchor.view(), 3, 5.0f);  // of any size: it is divided by it
  LayerChunk chunk{.layer = plan.units[0].first_layer, .first_position = 0};
  chunk.keys = keys.view();
  chunk.values = values.view();
  chunk.anchor = anchor.view();
  for (const int32_t level : {0, 1}) {
    ByteBuffer payload;
    encodes->encode(chunk, {.level = level}, payload);
    const double raw = 4.0 * static_cast<double>(tokens * width);
    EXPECT_NEAR(decoder.levels[static_cast<size_t>(level)].ratio_to_bf16, options_.ratios[static_cast<size_t>(level)],
                0.05 * options_.ratios[static_cast<size_t>(level)]);
    EXPECT_NEAR(raw / static_cast<double>(payload.size()), options_.ratios[static_cast<size_t>(level)],
                0.3 * options_.ratios[static_cast<size_t>(level)]);
    DecodedLayer out;
    ASSERT_TRUE(decodes->decode({plan.units[0].first_layer, 0, tokens, anchor.view()}, payload, out).ok());
    EXPECT_EQ(out.keys.size(), keys.values.size());
  }
}

TEST_F(MadeUpArtifact, WhatCannotBeIsRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const std::vector<double>& ratios :
       {std::vector<double>{}, {64, 16}, {16, 16}, {2, 16}, {16, nan}, {16, 20000}}) {
    options_.ratios = ratios;
    EXPECT_THROW(write_made_up_artifact(options_), Error);
  }
  options_.ratios = {16};
  options_.exact_layers = 99;
  EXPECT_THROW(write_made_up_artifact(options_), Error);
  options_.exact_layers = 1;
  write_made_up_artifact(options_);
  EXPECT_THROW(write_made_up_artifact(options_), Error) << "it is there already";
}

}  // namespace
}  // namespace scd
