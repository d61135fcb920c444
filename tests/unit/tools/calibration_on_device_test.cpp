// Calibration where a GPU holds the models: statistics, fits and training there give what the CPU gives, to rounding.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/gpu.h"
#include "tests/unit/tools/calibration_models.h"
#include "tools/scd/calibration.h"
#include "tools/scd/rd_calibration.h"

namespace scd {
namespace {

using kernels::Device;

class CalibrationOnDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    SCD_SKIP_WITHOUT_GPU();
    for (testing::CalibrationModels* models : {&here_, &there_}) {
      models->text.fit.resize(10);
      models->make("base", {.seed = 3});
      models->make("tuned", {.seed = 3, .perturb = 0.1, .perturb_seed = 9});
    }
  }

  testing::CalibrationModels here_{"scd_calibration_here_"};
  testing::CalibrationModels there_{"scd_calibration_there_", Device::kGpu};
};

TEST_F(CalibrationOnDevice, RdFindsWhatItFindsOnTheCpu) {
  RdCalibrationOptions options;
  options.plans = {make_plan({.exact_layers = 1, .group = 2, .native = {{2, 2}}}, here_.model("base").config().layers)};
  options.ratios = {8, 32};
  options.experiment.suffix = 24;
  const RdCalibrationResult here = calibrate_rd(here_.input("base", "tuned"), options);
  const RdCalibrationResult there = calibrate_rd(there_.input("base", "tuned"), options);
  ASSERT_EQ(there.units.size(), here.units.size());
  for (size_t i = 0; i < here.units.size(); ++i) {
    EXPECT_NEAR(there.units[i].energy, here.units[i].energy, 0.1 * here.units[i].energy) << i;
    EXPECT_NEAR(there.units[i].unpredictable, here.units[i].unpredictable, 0.1 * here.units[i].energy) << i;
  }
  for (size_t level = 0; level < 2; ++level) {
    const CodecPrediction &a = here.decoders[0].levels[level], &b = there.decoders[0].levels[level];
    EXPECT_NEAR(b.bytes_per_token, a.bytes_per_token, 0.1 * a.bytes_per_token);
    EXPECT_NEAR(b.kl, a.kl, 0.3 * a.kl);
  }
}

TEST_F(CalibrationOnDevice, ScdFindsWhatItFindsOnTheCpu) {
  CalibrationOptions options;
  options.patch_layers = 1;
  options.pool = 2;
  options.experiment.suffix = 24;
  options.predictor.network.width = 16;
  options.predictor.network.max_epochs = 3;
  const CalibrationResult here = calibrate(here_.input("base", "tuned"), options);
  const CalibrationResult there = calibrate(there_.input("base", "tuned"), options);
  ASSERT_EQ(there.layers.size(), here.layers.size());
  for (size_t i = 0; i < here.layers.size(); ++i) {
    EXPECT_NEAR(there.layers[i].key_loss, here.layers[i].key_loss, 0.01 + 0.1 * here.layers[i].key_loss) << i;
    EXPECT_NEAR(there.layers[i].value_loss, here.layers[i].value_loss, 0.01 + 0.1 * here.layers[i].value_loss) << i;
  }
  EXPECT_NEAR(there.held_out_reuse_kl, here.held_out_reuse_kl, 0.3 * here.held_out_reuse_kl);
}

}  // namespace
}  // namespace scd
