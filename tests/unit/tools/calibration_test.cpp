#include "tools/scd/calibration.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <random>

#include "common/codec/registry.h"
#include "common/model/fingerprint.h"
#include "common/model/make_model.h"
#include "tools/scd/rd_calibration.h"

namespace scd {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A tiny random base and a "fine-tune" of it, and text of random ids: what everything here needs.
class CalibrationPair {
 public:
  CalibrationPair() : root_(fs::temp_directory_path() / ("scd_calibration_" + std::to_string(::getpid()))) {
    make_model({.seed = 3}, base());
    make_model({.seed = 3, .perturb = 0.1, .perturb_seed = 9}, tuned());
    producer = std::make_unique<Model>(Model::load({.directory = base(), .adapter = {}, .progress = {}}));
    consumer = std::make_unique<Model>(Model::load({.directory = tuned(), .adapter = {}, .progress = {}}));
    std::mt19937 random(5);
    const auto windows = [&](int count, size_t length) {
      std::vector<TokenWindow> made(static_cast<size_t>(count), TokenWindow(length));
      for (TokenWindow& window : made) {
        for (TokenId& id : window) id = static_cast<TokenId>(random() % 250);
      }
      return made;
    };
    text = {windows(20, 120), {windows(4, 120)}, {windows(4, 120)}, {std::string(64, '7')}};
  }
  ~CalibrationPair() {
    producer.reset();
    consumer.reset();
    fs::remove_all(root_);
  }

  fs::path base() const { return root_ / "base"; }
  fs::path tuned() const { return root_ / "tuned"; }
  fs::path artifact(const std::string& name) const { return root_ / name; }

  CalibrationInput input() const { return {*producer, *consumer, identity(base()), identity(tuned()), text}; }

  std::unique_ptr<Model> producer;
  std::unique_ptr<Model> consumer;
  CalibrationText text;

 private:
  static ModelIdentity identity(const fs::path& directory) {
    const ModelFingerprint fingerprint = fingerprint_model(directory, std::nullopt);
    return {fingerprint.weights, fingerprint.tokenizer, fingerprint.rope};
  }
  fs::path root_;
};

class Calibration : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { pair_ = std::make_unique<CalibrationPair>(); }
  static void TearDownTestSuite() { pair_.reset(); }

  static CalibrationOptions options() {
    CalibrationOptions options;
    options.pool = 2;
    options.predictor.network.width = 16;
    options.predictor.network.max_epochs = 3;
    options.experiment.suffix = 24;
    options.reservoir_tokens = 600;
    return options;
  }

  static std::unique_ptr<CalibrationPair> pair_;
};
std::unique_ptr<CalibrationPair> Calibration::pair_;

TEST_F(Calibration, TheSameInputAndSeedGiveTheSameArtifact) {
  CalibrationOptions with_patch = options();
  with_patch.patch_layers = 1;
  CalibrationResult first = calibrate(pair_->input(), with_patch);
  CalibrationResult second = calibrate(pair_->input(), with_patch);
  write_artifact(pair_->artifact("first"), first.encoder, first.decoder);
  write_artifact(pair_->artifact("second"), second.encoder, second.decoder);
  EXPECT_EQ(first.encoder.id, second.encoder.id);
  EXPECT_EQ(first.decoder, second.decoder);
  EXPECT_EQ(first.encoder.patch_layers().size(), 1U);
  EXPECT_EQ(load_decoder(pair_->artifact("first"), first.decoder.consumer.weights), first.decoder);
}

TEST_F(Calibration, FullRankReuseTranslatesBetterThanTheRawCache) {
  CalibrationOptions full = options();
  full.rank = {.key = pair_->producer->config().head_dim, .value = pair_->producer->config().head_dim};
  full.patch_layers = 0;
  const CalibrationResult result = calibrate(pair_->input(), full);
  for (const LayerReport& layer : result.layers) {
    EXPECT_LT(layer.key_loss, 0.5);
    EXPECT_LT(layer.value_loss, 0.9);
  }
  EXPECT_NEAR(result.decoder.prediction.ratio_to_bf16, 1.0, 0.01);
  EXPECT_GT(result.decoder.prediction.kl, 0.0);
  EXPECT_TRUE(result.encoder.patch_layers().empty());
}

TEST_F(Calibration, AModelTranslatedToItselfLosesAlmostNothing) {
  CalibrationOptions full = options();
  full.rank = {.key = pair_->producer->config().head_dim, .value = pair_->producer->config().head_dim};
  full.patch_layers = 0;
  full.ridge = 1e-9;
  CalibrationInput input = {*pair_->producer, *pair_->producer, pair_->input().producer_identity,
                            pair_->input().producer_identity, pair_->text};
  const CalibrationResult result = calibrate(input, full);
  for (const LayerReport& layer : result.layers) {
    EXPECT_LT(layer.key_loss, 1e-4);
    EXPECT_LT(layer.value_loss, 1e-4);
  }
  EXPECT_LT(result.decoder.prediction.kl, 1e-3);
}

TEST_F(Calibration, TellsWhenTheLossConstraintCannotBeMet) {
  CalibrationOptions strict = options();
  strict.rank = {.key = 2, .value = 2};
  strict.patch_layers = 0;
  strict.max_kl = 1e-9;
  EXPECT_FALSE(calibrate(pair_->input(), strict).meets_max_kl);
  strict.max_kl = 100;
  EXPECT_TRUE(calibrate(pair_->input(), strict).meets_max_kl);
}

TEST_F(Calibration, AFurtherConsumerGetsADecoderForTheSameEncoder) {
  CalibrationOptions with_patch = options();
  with_patch.patch_layers = 1;
  CalibrationResult first = calibrate(pair_->input(), with_patch);
  write_artifact(pair_->artifact("shared"), first.encoder, first.decoder);
  const CalibrationInput other = {*pair_->producer, *pair_->producer, pair_->input().producer_identity,
                                  pair_->input().producer_identity, pair_->text};
  const ArtifactEncoder encoder = load_encoder(pair_->artifact("shared"));
  const CalibrationResult second = calibrate_consumer(other, encoder, with_patch);
  add_decoder(pair_->artifact("shared"), second.decoder);
  EXPECT_EQ(load_encoder(pair_->artifact("shared")).id, first.encoder.id);
  EXPECT_EQ(list_decoders(pair_->artifact("shared")).size(), 2U);
  EXPECT_LT(second.decoder.prediction.kl, 1.0);
}

TEST_F(Calibration, RanksBeyondTheModelAreRefused) {
  CalibrationOptions wrong = options();
  wrong.rank.key = pair_->producer->config().head_dim + 1;
  try {
    calibrate(pair_->input(), wrong);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank of keys"));
  }
}

TEST_F(Calibration, AnExperimentWithTheRawCodecOfOneModelIsTheOracle) {
  CacheExperiment experiment(*pair_->producer, *pair_->producer, 256, {.suffix = 32});
  const CodecModel model = codec_model_of(pair_->producer->config());
  const auto encoder = make_encoder(CodecId::kRaw, model, nullptr);
  const auto decoder = make_decoder(CodecId::kRaw, model, model, nullptr);
  const Encoder* encoders[] = {encoder.get()};
  experiment.set_prompt(pair_->text.fit[0], encoders);
  EXPECT_EQ(experiment.handover(), 80);
  const std::vector<TokenId> forced = {5, 6, 7};
  const Continuation oracle = experiment.run(forced);
  EXPECT_EQ(oracle.rows, 40 + 3);
  const std::vector<TokenId> answer = experiment.generate(8);
  const RebuildAccount account = experiment.rebuild(*encoder, *decoder, {});
  EXPECT_EQ(account.tokens, 64);
  EXPECT_EQ(account.payloads, model.layers - 1);
  for (const double kl : kl_divergence(oracle, experiment.run(forced))) EXPECT_LT(kl, 1e-9);
  EXPECT_EQ(experiment.generate(8), answer);
}

TEST_F(Calibration, APromptThatSharesItsBeginningWithTheLastIsMeasuredAlike) {
  CalibrationOptions with_patch = options();
  with_patch.patch_layers = 1;
  const CalibrationResult fitted = calibrate(pair_->input(), with_patch);
  const CodecModel producer = codec_model_of(pair_->producer->config());
  const CodecModel consumer = codec_model_of(pair_->consumer->config());
  const auto encoder = make_encoder(CodecId::kScd, producer, &fitted.encoder);
  const auto decoder = make_decoder(CodecId::kScd, producer, consumer, &fitted.decoder);
  const Encoder* encoders[] = {encoder.get()};
  const auto measure = [&](CacheExperiment& experiment, std::span<const TokenId> prompt) {
    experiment.set_prompt(prompt, encoders);
    (void)experiment.rebuild(*encoder, *decoder, {});
    return experiment.run({});
  };
  const std::vector<TokenId> first = pair_->text.fit[0];
  std::vector<TokenId> second = first;
  second[70] = second[70] == 5 ? 6 : 5;
  const std::span<const TokenId> shorter = std::span(first).first(90);
  CacheExperiment shared(*pair_->producer, *pair_->consumer, 256);
  (void)measure(shared, first);
  for (const std::span<const TokenId> prompt : {std::span<const TokenId>(second), shorter, std::span(first)}) {
    CacheExperiment fresh(*pair_->producer, *pair_->consumer, 256);
    const Continuation expected = measure(fresh, prompt);
    const Continuation found = measure(shared, prompt);
    ASSERT_EQ(found.logits.size(), expected.logits.size());
    for (size_t i = 0; i < found.logits.size(); ++i) ASSERT_NEAR(found.logits[i], expected.logits[i], 2e-4);
  }
}

TEST_F(Calibration, PromptsThatShareTheirBeginningAreMeasuredInABatchAsOneByOne) {
  const CodecModel a = codec_model_of(pair_->producer->config()), b = codec_model_of(pair_->consumer->config());
  const auto encoder = make_encoder(CodecId::kRaw, a, nullptr);
  const auto decoder = make_decoder(CodecId::kRaw, a, b, nullptr);
  const Encoder* encoders[] = {encoder.get()};
  // Alike up to 83: three different ends, of different lengths, behind a hand-over of 80.
  std::vector<std::vector<TokenId>> prompts(3, std::vector<TokenId>(pair_->text.fit[0]));
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].resize(114 + i);
    for (size_t at = 83; at < prompts[i].size(); ++at) prompts[i][at] = static_cast<TokenId>((31 * at + 7 * i) % 250);
  }
  const std::vector<std::vector<TokenId>> forced = {{5}, {}, {6, 7}};
  CacheExperiment batch(*pair_->producer, *pair_->consumer, 160);
  batch.set_prompts(prompts, encoders);
  ASSERT_EQ(batch.handover(), 80);
  (void)batch.rebuild(*encoder, *decoder, {});
  const std::vector<Continuation> together = batch.run_all(forced);
  const std::vector<std::vector<TokenId>> answers = batch.generate_all(6);
  for (size_t i = 0; i < prompts.size(); ++i) {
    CacheExperiment alone(*pair_->producer, *pair_->consumer, 160);
    alone.set_prompt(prompts[i], encoders);
    ASSERT_EQ(alone.handover(), 80);
    (void)alone.rebuild(*encoder, *decoder, {});
    // Generating without run() first: it runs the end of the prompt itself.
    EXPECT_EQ(alone.generate(6), answers[i]);
    const Continuation expected = alone.run(forced[i]);
    ASSERT_EQ(together[i].logits.size(), expected.logits.size());
    for (size_t k = 0; k < expected.logits.size(); ++k) ASSERT_NEAR(together[i].logits[k], expected.logits[k], 2e-4);
  }
}

TEST_F(Calibration, APromptThatIsTooLongLeavesTheExperimentAsItWas) {
  CacheExperiment experiment(*pair_->producer, *pair_->consumer, 128);
  experiment.set_prompt(pair_->text.fit[0], {});
  const std::vector<TokenId> expected = experiment.generate(4);
  EXPECT_THROW(experiment.set_prompt(std::vector<TokenId>(129, 5), {}), Error);
  experiment.set_prompt(pair_->text.fit[0], {});
  EXPECT_EQ(experiment.generate(4), expected);
}

TEST_F(Calibration, RdLevelsTradeBytesForKlAndTheSameSeedGivesTheSameArtifact) {
  RdCalibrationOptions wanted;
  wanted.plans = {make_plan({.exact_layers = 1, .group = 2}, pair_->consumer->config().layers)};
  wanted.ratios = {3, 6, 12};
  wanted.experiment = options().experiment;
  RdCalibrationResult first = calibrate_rd(pair_->input(), wanted);
  const std::vector<CodecPrediction>& levels = first.decoders[0].levels;
  ASSERT_EQ(levels.size(), 3U);
  for (size_t i = 1; i < levels.size(); ++i) {
    EXPECT_LT(levels[i].bytes_per_token, levels[i - 1].bytes_per_token);
    EXPECT_GT(levels[i].kl, levels[i - 1].kl);
  }
  // Far from the producer's cache as it is: the fit knows how the consumer differs.
  CacheExperiment experiment(*pair_->producer, *pair_->consumer, 256, wanted.experiment);
  const CodecModel a = codec_model_of(pair_->producer->config()), b = codec_model_of(pair_->consumer->config());
  const auto raw_encoder = make_encoder(CodecId::kRaw, a, nullptr);
  const auto raw_decoder = make_decoder(CodecId::kRaw, a, b, nullptr);
  const auto rd_encoder = make_encoder(CodecId::kRd, a, &first.encoder);
  const auto rd_decoder = make_decoder(CodecId::kRd, a, b, &first.decoders[0]);
  const Encoder* encoders[] = {raw_encoder.get(), rd_encoder.get()};
  experiment.set_prompt(pair_->text.held_out.windows[0], encoders);
  const Continuation truth = experiment.run({});
  const auto kl_with = [&](const Encoder& encoder, const Decoder& decoder) {
    (void)experiment.rebuild(encoder, decoder, {});
    const std::vector<double> kl = kl_divergence(truth, experiment.run({}));
    return std::accumulate(kl.begin(), kl.end(), 0.0);
  };
  EXPECT_LT(kl_with(*rd_encoder, *rd_decoder), 0.7 * kl_with(*raw_encoder, *raw_decoder));

  RdCalibrationResult second = calibrate_rd(pair_->input(), wanted);
  write_artifact(pair_->artifact("rd1"), first.encoder, first.decoders[0]);
  write_artifact(pair_->artifact("rd2"), second.encoder, second.decoders[0]);
  EXPECT_EQ(first.encoder.id, second.encoder.id);
  EXPECT_EQ(first.decoders[0], second.decoders[0]);
}

// More of the consumer's own layers leave less to code and less to lose; the search says so and keeps to the cap.
TEST_F(Calibration, ASearchMeasuresEveryPlanAndKeepsTheBestWithinTheCap) {
  const int32_t layers = pair_->consumer->config().layers;
  ASSERT_GE(layers, 4);
  RdCalibrationOptions wanted;
  wanted.plans = {make_plan({.exact_layers = 1, .group = layers}, layers),
                  make_plan({.exact_layers = 1, .group = layers, .native = {{1, layers - 1}}}, layers)};
  wanted.ratios = {8};
  wanted.bandwidth_gbps = 0.001;  // bytes are dear, the consumer's time is not
  wanted.experiment = options().experiment;
  const RdCalibrationResult open = calibrate_rd(pair_->input(), wanted);
  ASSERT_EQ(open.search.size(), 2U);
  EXPECT_EQ(open.search[0].native_share, 0.0);
  EXPECT_GT(open.search[1].native_share, 0.4);
  EXPECT_LT(open.search[1].levels[0].kl, open.search[0].levels[0].kl);
  const auto best = std::ranges::max_element(open.search, {}, &RdPlanReport::score);
  EXPECT_EQ(open.encoder.rd.plan, best->plan);
  wanted.max_native_share = 0.1;
  EXPECT_EQ(calibrate_rd(pair_->input(), wanted).encoder.rd.plan, wanted.plans[0]);
}

// Codes stay as they are: only what the consumer makes of them changes, and where it changes, it loses less.
TEST_F(Calibration, ASearchTriesNetworksOnTheDecodersSide) {
  RdCalibrationOptions wanted;
  const int32_t layers = pair_->consumer->config().layers;
  wanted.plans = {make_plan({.exact_layers = 1, .group = 2, .native = {{layers / 2, layers / 2}}}, layers)};
  wanted.ratios = {4, 12};
  wanted.network_widths = {0, 24};
  wanted.experiment = options().experiment;
  const RdCalibrationResult searched = calibrate_rd(pair_->input(), wanted);
  ASSERT_EQ(searched.search.size(), 2U);
  EXPECT_EQ(searched.search[0].network_width, 0);
  EXPECT_EQ(searched.search[1].network_width, 24);
  EXPECT_EQ(searched.search[0].native_share, searched.search[1].native_share);
  wanted.network_widths = {0};
  const RdCalibrationResult linear = calibrate_rd(pair_->input(), wanted);
  wanted.network_widths = {24};
  const RdCalibrationResult networked = calibrate_rd(pair_->input(), wanted);
  EXPECT_EQ(networked.network_width, 24);
  EXPECT_EQ(linear.encoder.rd, networked.encoder.rd);
  size_t kept = 0;
  for (size_t unit = 0; unit < networked.units.size(); ++unit) {
    const RdUnitDecoder& decoder = networked.decoders[0].rd.units[unit];
    const RdUnitReport& report = networked.units[unit];
    EXPECT_GT(report.left_by_regression, 0);
    EXPECT_EQ(report.left_with_network < report.left_by_regression, !decoder.network.empty());
    EXPECT_LE(report.left_with_network, report.left_by_regression);
    kept += decoder.network.empty() ? 0 : 1;
    RdUnitDecoder without = decoder;
    without.network = {};
    EXPECT_EQ(without, linear.decoders[0].rd.units[unit]);
  }
  EXPECT_GT(kept, 0U);
  EXPECT_EQ(calibrate_rd(pair_->input(), wanted).decoders[0].rd, networked.decoders[0].rd) << "the same seed";

  const RdCalibrationResult added = calibrate_rd_consumer(pair_->input(), networked.encoder, wanted);
  EXPECT_EQ(added.decoders[0].rd, networked.decoders[0].rd) << "the consumer it was fitted with";
}

// Fewer directions tell less of what is to come, and what they do not tell is left to the codes.
TEST_F(Calibration, ASearchTriesSharesOfThePrediction) {
  RdCalibrationOptions wanted;
  const int32_t layers = pair_->consumer->config().layers;
  wanted.plans = {make_plan({.exact_layers = 2, .group = layers}, layers)};
  wanted.ratios = {6};
  wanted.anchor_shares = {1, 0.6};
  wanted.experiment = options().experiment;
  const RdCalibrationResult searched = calibrate_rd(pair_->input(), wanted);
  ASSERT_EQ(searched.search.size(), 2U);
  EXPECT_EQ(searched.search[0].anchor_share, 1);
  EXPECT_EQ(searched.search[1].anchor_share, 0.6);
  wanted.anchor_shares = {1};
  const RdCalibrationResult all = calibrate_rd(pair_->input(), wanted);
  wanted.anchor_shares = {0.6};
  const RdCalibrationResult few = calibrate_rd(pair_->input(), wanted);
  const int64_t hidden = pair_->consumer->config().hidden;
  for (size_t unit = 0; unit < few.units.size(); ++unit) {
    const RdUnitDecoder& whole = all.decoders[0].rd.units[unit];
    const RdUnitDecoder& decoder = few.decoders[0].rd.units[unit];
    EXPECT_TRUE(whole.anchor_basis.empty());
    EXPECT_EQ(whole.anchor_map.rows, hidden);
    EXPECT_EQ(decoder.anchor_basis.rows, hidden);
    EXPECT_EQ(decoder.anchor_map.rows, decoder.anchor_basis.columns);
    EXPECT_LT(decoder.anchor_map.rows, hidden / 2);
    const auto coded = [&](const RdCalibrationResult& result) {
      double energy = result.units[unit].unpredictable;
      for (const float deviation : result.encoder.rd.quantiser.deviations[unit])
        energy += double{deviation} * deviation;
      return energy;
    };
    EXPECT_GT(coded(few), coded(all));
  }
  const RdCalibrationResult added = calibrate_rd_consumer(pair_->input(), few.encoder, wanted);
  EXPECT_EQ(added.decoders[0].rd, few.decoders[0].rd) << "the consumer it was fitted with";
}

// One stored code, two consumers: the fine-tune it was fitted with and the producer itself.
TEST_F(Calibration, AnEncoderServesAFurtherConsumerWithDecodersOfItsOwn) {
  RdCalibrationOptions wanted;
  wanted.plans = {make_plan({.exact_layers = 1, .group = 2}, pair_->consumer->config().layers)};
  wanted.ratios = {6};
  wanted.experiment = options().experiment;
  RdCalibrationResult fitted = calibrate_rd(pair_->input(), wanted);
  write_artifact(pair_->artifact("rd_two"), fitted.encoder, fitted.decoders[0]);
  CalibrationInput own = pair_->input();
  const CalibrationInput producer_itself{own.producer, own.producer, own.producer_identity, own.producer_identity,
                                         own.text};
  RdCalibrationResult added = calibrate_rd_consumer(producer_itself, load_encoder(pair_->artifact("rd_two")), wanted);
  add_decoder(pair_->artifact("rd_two"), added.decoders[0]);
  EXPECT_EQ(list_decoders(pair_->artifact("rd_two")).size(), 2U);
  EXPECT_EQ(added.decoders[0].encoder_id, fitted.encoder.id);
  EXPECT_LT(added.decoders[0].levels[0].kl, 2 * fitted.decoders[0].levels[0].kl);
}

TEST_F(Calibration, AnAnswerEndsWithTheFirstIdThatEndsIt) {
  CacheExperiment experiment(*pair_->producer, *pair_->producer, 256);
  experiment.set_prompt(pair_->text.fit[0], {});
  experiment.use_oracle();
  std::vector<TokenId> answer = experiment.generate(8);
  ASSERT_EQ(answer.size(), 8U);
  const auto end = std::ranges::find(answer, answer[4]);
  EXPECT_EQ(experiment.generate(8, [&](TokenId id) { return id == *end; }),
            std::vector<TokenId>(answer.begin(), end + 1));
}

TEST_F(Calibration, TheSameCalibrationMayBeWrittenAgainAndAnotherIsRefusedBeforeItRuns) {
  CalibrationOptions wanted = options();
  wanted.patch_layers = 1;
  CalibrationResult result = calibrate(pair_->input(), wanted);
  write_artifact(pair_->artifact("again"), result.encoder, result.decoder);
  const ArtifactEncoder there = load_encoder(pair_->artifact("again"));
  const CalibrationInput input = pair_->input();
  const auto check = [&](const CalibrationOptions& asked, const ModelIdentity& consumer, const CalibrationText& text) {
    require_same_calibration(there, input.producer_identity, consumer, text, asked);
  };
  EXPECT_NO_THROW(check(wanted, input.consumer_identity, pair_->text));
  CalibrationOptions other = wanted;
  other.seed = 7;
  other.rank.key = 3;
  other.patch_layers = 2;
  try {
    check(other, input.producer_identity, pair_->text);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kAlreadyExists);
    EXPECT_THAT(error.what(), HasSubstr("(other consumer, seed, ranks, number of Patch layers)"));
  }
  CalibrationText shorter = pair_->text;
  shorter.fit.pop_back();
  EXPECT_THROW(check(wanted, input.consumer_identity, shorter), Error);
}

TEST_F(Calibration, AnExperimentNamesPromptsItHasNoRoomFor) {
  CacheExperiment experiment(*pair_->producer, *pair_->consumer, 64);
  EXPECT_THROW(experiment.set_prompt({}, {}), Error);
  try {
    experiment.set_prompt(pair_->text.fit[0], {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("120 tokens"), HasSubstr("64")));
  }
}

TEST(KlDivergence, EqualsTheDefinitionInDouble) {
  const std::vector<float> truth = {1.0f, -2.0f, 0.5f, 3.0f};
  const std::vector<float> other = {0.5f, -1.0f, 0.0f, 2.0f};
  double truth_sum = 0, other_sum = 0, expected = 0;
  for (const float value : truth) truth_sum += std::exp(double{value});
  for (const float value : other) other_sum += std::exp(double{value});
  for (size_t i = 0; i < truth.size(); ++i) {
    const double p = std::exp(double{truth[i]}) / truth_sum;
    expected += p * (std::log(p) - (other[i] - std::log(other_sum)));
  }
  EXPECT_NEAR(kl_divergence(truth, other), expected, 1e-6);
  EXPECT_EQ(kl_divergence(truth, truth), 0.0);
}

TEST(PatchBudget, MaximisesTheGainPerCost) {
  const std::vector<PatchStep> steps = {{4, 0.30, 110}, {7, 0.10, 120}, {9, 0.09, 130}};
  EXPECT_EQ(choose_budget(steps, 0.40, 100, 0), 2);      // .10/1.1, .30/2.4, .31/3.9
  EXPECT_EQ(choose_budget(steps, 0.40, 100, 0.095), 3);  // only the third meets it
  EXPECT_EQ(choose_budget(steps, 0.40, 100, 0.01), 3);   // none does: the lowest KL
  EXPECT_EQ(choose_budget(steps, 0.40, 100, 0.5), 2);    // all do
  EXPECT_EQ(choose_budget({}, 0.40, 100, 0), 0);
}

TEST(HandoverTokens, EndsAtTheLastPageBeforeTheSuffix) {
  EXPECT_EQ(handover_tokens(1000, 64), 928);
  EXPECT_EQ(handover_tokens(79, 64), 0);
  EXPECT_EQ(handover_tokens(80, 64), 16);
  EXPECT_EQ(handover_tokens(64, 0), 48);
}

}  // namespace
}  // namespace scd
