// One encoder for several consumers.
#include <gmock/gmock.h>

#include "common/codec/registry.h"
#include "tests/unit/tools/calibration_models.h"
#include "tools/scd/rd_calibration.h"

namespace scd {
namespace {

class RdConsumers : public ::testing::Test {
 protected:
  RdConsumers() {
    models_.make("base", {.seed = 3});
    models_.make("first", {.seed = 3, .perturb = 0.3, .perturb_seed = 9});
    models_.make("second", {.seed = 3, .perturb = 0.3, .perturb_seed = 21});
  }

  RdCalibrationOptions options(CodecId codec = CodecId::kRd) {
    RdCalibrationOptions options;
    options.codec = codec;
    options.plans = {make_plan({.exact_layers = 1, .group = 2, .native = {}, .predicted = codec == CodecId::kRd},
                               models_.model("base").config().layers)};
    options.ratios = {8, 24};
    options.experiment.suffix = 24;
    return options;
  }
  std::vector<CalibrationInput> inputs() { return {models_.input("base", "first"), models_.input("base", "second")}; }

  testing::CalibrationModels models_{"scd_rd_consumers_"};
};

// Against what an encoder of the other consumer alone makes of this one, through a decoder of its own.
TEST_F(RdConsumers, OneEncoderServesBothBetterThanEachOnesOwnServesTheOther) {
  const std::vector<CalibrationInput> both = inputs();
  const RdCalibrationResult shared = calibrate_rd(both, options());
  ASSERT_EQ(shared.decoders.size(), 2U);
  for (size_t k = 0; k < 2; ++k) {
    const RdCalibrationResult others = calibrate_rd(both[1 - k], options());
    const RdCalibrationResult added = calibrate_rd_consumer(both[k], others.encoder, options());
    double kl = 0, kl_through_other = 0;
    for (size_t level = 0; level < 2; ++level) {
      const CodecPrediction& found = shared.decoders[k].levels[level];
      const CodecPrediction& through_other = added.decoders[0].levels[level];
      kl += found.kl;
      kl_through_other += through_other.kl;
      EXPECT_LT(found.bytes_per_token, 1.05 * through_other.bytes_per_token);
    }
    EXPECT_LT(kl, 0.98 * kl_through_other) << "consumer " << k;
  }
}

TEST_F(RdConsumers, TheArtifactHoldsOneEncoderAndADecoderForEachAndTheSameSeedGivesTheSame) {
  for (const CodecId codec : {CodecId::kRd, CodecId::kKvtc}) {
    const std::vector<CalibrationInput> both = inputs();
    std::vector<std::filesystem::path> folders;
    for (const std::string name : {"one", "two"}) {
      RdCalibrationResult result = calibrate_rd(both, options(codec));
      folders.push_back(models_.path(name + std::string(to_string(codec))));
      write_artifact(folders.back(), result.encoder, result.decoders);
    }
    const ArtifactEncoder encoder = load_encoder(folders[0]);
    EXPECT_EQ(encoder.id, load_encoder(folders[1]).id);
    EXPECT_EQ(encoder.fitted_with, both[0].consumer_identity.weights);
    EXPECT_EQ(encoder.also_fitted_with, std::vector{both[1].consumer_identity.weights});
    ASSERT_EQ(list_decoders(folders[0]).size(), 2U);
    for (const CalibrationInput& input : both) {
      const ArtifactDecoder decoder = load_decoder(folders[0], input.consumer_identity.weights);
      EXPECT_EQ(decoder, load_decoder(folders[1], input.consumer_identity.weights));
      EXPECT_EQ(decoder.encoder_id, encoder.id);
      EXPECT_TRUE(check_compatible(decoder, input.producer_identity, input.consumer_identity).ok());
    }
  }
}

}  // namespace
}  // namespace scd
