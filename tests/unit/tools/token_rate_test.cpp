// A rate per token: whose attention, which steps, what is coded with them, and that a search measures it only.
#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <random>

#include "common/model/forward.h"
#include "tests/unit/codec/rd_samples.h"
#include "tests/unit/tools/calibration_models.h"
#include "tools/scd/attention_mass.h"
#include "tools/scd/rd_calibration.h"
#include "tools/scd/token_rate_codec.h"

namespace scd {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

class TokenRate : public ::testing::Test {
 protected:
  TokenRate() {
    models_.make("base", {.seed = 3});
    models_.make("tuned", {.seed = 3, .perturb = 0.3, .perturb_seed = 9});
  }
  testing::CalibrationModels models_{"scd_token_rate_"};
};

// One query's squared probabilities in the first layer, in double, as the definition has them.
std::vector<double> first_layer_squares(const Model& model, const TokenWindow& tokens, int64_t query) {
  const ModelConfig& config = model.config();
  const auto count = static_cast<int64_t>(tokens.size());
  SequenceCache cache(config.kv_shape(model.precision()), count);
  const SequenceChunk chunk{&cache.pages, 0, tokens};
  ForwardPass pass(model, cache.cache, std::span(&chunk, 1));
  pass.run_layer();
  const KeysValues rows = read_rows(cache.cache, cache.pages, 0, {0, count});
  std::vector<double> squares(tokens.size());
  for (int64_t head = 0; head < config.query_heads; ++head) {
    const float* q = pass.queries().row<float>(query) + head * config.head_dim;
    const int64_t at = head / (config.query_heads / config.kv_heads) * config.head_dim;
    std::vector<double> scores;
    for (int64_t token = 0; token <= query; ++token) {
      const float* k = rows.keys.view().row<float>(token) + at;
      scores.push_back(std::exp(std::inner_product(q, q + config.head_dim, k, 0.0) / std::sqrt(config.head_dim)));
    }
    const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (size_t token = 0; token + 1 < scores.size(); ++token) squares[token] += std::pow(scores[token] / sum, 2);
  }
  return squares;
}

TEST_F(TokenRate, MassIsTheSquareOfWhatLaterQueriesGiveAToken) {
  const Model& model = models_.model("base");
  const TokenWindow tokens = testing::random_windows(1, 40, 11).front();
  const DenseMatrix mass = attention_mass(model, tokens, {.of = {30, 1}});
  ASSERT_EQ(mass.rows, model.config().layers);
  const std::vector<double> expected = first_layer_squares(model, tokens, 30);
  for (int64_t token = 0; token < 40; ++token) {
    EXPECT_NEAR(mass.at(0, token), expected[static_cast<size_t>(token)], 1e-5) << token;
    EXPECT_EQ(mass.at(0, token) > 0, token < 30) << token;
  }
}

TEST_F(TokenRate, MassAddsUpOverQueriesAndAChunkHearsOnlyItsOwn) {
  const Model& model = models_.model("base");
  const TokenWindow tokens = testing::random_windows(1, 40, 11).front();
  const DenseMatrix all = attention_mass(model, tokens, {.of = {8, 32}});
  const DenseMatrix first = attention_mass(model, tokens, {.of = {8, 16}});
  const DenseMatrix last = attention_mass(model, tokens, {.of = {24, 16}});
  const AttentionQueries by_chunk{.of = {8, 32}, .chunk = 16};
  const DenseMatrix chunked = attention_mass(model, tokens, by_chunk);
  const std::vector<int64_t> counts = count_queries(40, by_chunk);
  for (int64_t token = 0; token < 40; ++token) {
    EXPECT_NEAR(all.at(1, token), first.at(1, token) + last.at(1, token), 1e-5);
    const bool first_chunk = token < 24;
    const float own = token < 8 ? 0.0f : first_chunk ? first.at(1, token) : last.at(1, token);
    EXPECT_NEAR(chunked.at(1, token), own, 1e-5) << token;
    EXPECT_EQ(counts[static_cast<size_t>(token)], token < 8 ? 0 : (first_chunk ? 23 : 39) - token) << token;
  }
}

TEST(TokenClasses, AFourthOfTheWeightDoublesTheStepUpToALimit) {
  const std::vector<double> octaves = octaves_of(std::vector<double>{2, 0.5, 8, 2});
  EXPECT_THAT(octaves, ElementsAre(0, -2, 2, 0));
  EXPECT_THAT(token_classes(octaves, 1.0), ElementsAre(0, 2, -2, 0));
  EXPECT_THAT(token_classes(octaves, 0.5), ElementsAre(0, 1, -1, 0));
  EXPECT_THAT(token_classes(std::vector<double>{-60, 60}, 1.0), ElementsAre(kMostTokenClass, -kMostTokenClass));
  EXPECT_THAT(octaves_of(std::vector<double>{7, 7, 7}), Each(0));
}

// Octaves that are a linear function of the codes, with noise that is not.
TEST(TokenWeightFit, FindsWhatCodesTellAndNothingElse) {
  TokenWeightFit fit({2.0f, 1.0f, 0.5f});
  DenseMatrix codes = testing::random_matrix(3, 4000, 5);
  std::mt19937 random(8);
  std::normal_distribution<double> noise;
  std::vector<double> octaves;
  for (int64_t token = 0; token < codes.columns; ++token) {
    for (int64_t row = 0; row < 3; ++row) codes.at(row, token) *= std::exp2(1.0f - static_cast<float>(row));
    octaves.push_back(0.75 + 2 * codes.at(0, token) - 3 * codes.at(2, token) + noise(random));
  }
  fit.add(codes, octaves);
  fit.fit(1e-6);
  DenseMatrix units(3, 4);  // none, and each alone
  for (int64_t row = 0; row < 3; ++row) units.at(row, row + 1) = 1.0f;
  const std::vector<double> found = fit.predict(units);
  EXPECT_NEAR(found[0], 0.75, 0.1);
  EXPECT_NEAR(found[1] - found[0], 2, 0.1);
  EXPECT_NEAR(found[2] - found[0], 0, 0.1);
  EXPECT_NEAR(found[3] - found[0], -3, 0.3);
  fit.fit(1e6);
  EXPECT_NEAR(fit.predict(units)[1], 0.75, 0.1) << "a penalty leaves the mean";
}

TEST_F(TokenRate, SinksHaveNoClassAndOthersHaveThoseOfTheirQueries) {
  const Model &base = models_.model("base"), &tuned = models_.model("tuned");
  const LayerPlan plan = make_plan({.exact_layers = 1, .group = 1, .native = {}}, base.config().layers);
  const CacheExperimentOptions experiment{.chunk_tokens = 32, .suffix = 24};
  const TokenWindow window = models_.text.validation.windows.front();
  const int64_t handover = handover_tokens(std::ssize(window), experiment.suffix);
  std::vector<std::vector<int8_t>> found;
  for (const RateQueries queries : {RateQueries::kScored, RateQueries::kPrompt, RateQueries::kChunk}) {
    TokenRates rates({base, tuned, plan, experiment, queries});
    rates.set_window(window);
    EXPECT_THAT(rates.classes(0, 0, experiment.sinks), Each(0));
    const auto classes = rates.classes(0, experiment.sinks, handover - experiment.sinks);
    EXPECT_GT(std::ranges::max(classes), 0);
    EXPECT_LT(std::ranges::min(classes), 0);
    found.emplace_back(classes.begin(), classes.end());
    // What comes after the hand-over is known to the bound alone.
    TokenWindow other = window;
    for (auto id = other.begin() + handover; id != other.end(); ++id) *id = (*id + 100) % 250;
    rates.set_window(other);
    const auto after = rates.classes(0, experiment.sinks, handover - experiment.sinks);
    EXPECT_EQ(std::ranges::equal(after, found.back()), queries != RateQueries::kScored);
  }
  EXPECT_NE(found[0], found[1]);
  EXPECT_NE(found[1], found[2]);
}

TEST_F(TokenRate, LearnedClassesComeFromCodesSeenAndOnlyOnceLearned) {
  const Model& base = models_.model("base");
  const LayerPlan plan = make_plan({.exact_layers = 1, .group = 1, .native = {}}, base.config().layers);
  TokenRates rates({base, models_.model("tuned"), plan, {.suffix = 24}, RateQueries::kLearned});
  const std::vector<std::vector<float>> deviations(plan.units.size(), std::vector<float>(4, 1.0f));
  const DenseMatrix codes = testing::random_matrix(4, 64, 3);
  rates.begin_learning(deviations);
  for (const TokenWindow& window : models_.text.fit) {
    rates.set_window(window);
    for (size_t unit = 0; unit < plan.units.size(); ++unit) rates.see(unit, 16, codes);
    EXPECT_THAT(rates.classes(0, 16, 64), Each(0));
  }
  rates.end_learning();
  rates.set_window(models_.text.validation.windows.front());
  EXPECT_THAT(rates.classes(0, 16, 64), Each(0));
  DenseMatrix strong = codes;
  for (float& value : strong.values) value *= 1000;
  rates.see(0, 16, strong);
  const auto classes = rates.classes(0, 16, 64);
  EXPECT_EQ(std::ranges::max(classes), kMostTokenClass);
  EXPECT_EQ(std::ranges::min(classes), -kMostTokenClass);
  EXPECT_THAT(rates.classes(1, 16, 64), Each(0)) << "codes of another unit";
}

struct RatedSample {
  RdQuantiserSettings settings =
      testing::sample_rd(testing::small_model(), {1, {{1, 1}, {2, 1}}}, {0.1f, 0.4f}).encoder.quantiser;
  TokenRateQuantiser quantiser{settings};
  int64_t width = std::ssize(settings.deviations[0]);
  DenseMatrix values = testing::random_matrix(width, 48, 6);

  ByteBuffer encode(std::span<const int8_t> classes) const {
    ByteBuffer body;
    quantiser.encode(0, 0, classes, values.view(), body);
    return body;
  }
};

TEST(TokenRateQuantiser, TokensOfOneClassAreCodedAsTheCodecDoes) {
  RatedSample sample;
  ByteBuffer expected;
  RdQuantiser(sample.settings).encode(0, 0, std::as_const(sample.values).view(), expected);
  EXPECT_EQ(sample.encode(std::vector<int8_t>(48)), expected) << "one class for all takes no bits to name";
  // Two octaves of step are the second level.
  ByteBuffer coarse;
  const RdQuantiser quantiser(sample.settings);
  const int64_t sent = quantiser.components(0, 1);
  quantiser.encode(0, 1, sample.values.top(sent), coarse);
  EXPECT_EQ(sample.quantiser.components(0, 0, 4), sent);
  EXPECT_EQ(sample.encode(std::vector<int8_t>(48, 4)), coarse);
}

TEST(TokenRateQuantiser, EveryTokenComesBackWithinItsOwnStep) {
  RatedSample sample;
  sample.values.at(0, 5) = 40.0f;  // beyond the tables
  std::vector<int8_t> classes(48);
  for (size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<int8_t>(i % 7) - 3;
  DenseMatrix decoded(sample.width, 48);
  sample.quantiser.decode(0, 0, classes, sample.encode(classes), decoded.view());
  for (int64_t token = 0; token < 48; ++token) {
    const int8_t of = classes[static_cast<size_t>(token)];
    const double step = 0.1 * std::exp2(0.5 * of);
    for (int64_t row = 0; row < sample.width; ++row) {
      const bool sent = row < sample.quantiser.components(0, 0, of);
      const double error = std::abs(decoded.at(row, token) - (sent ? sample.values.at(row, token) : 0.0f));
      EXPECT_LE(error, sent ? 1.01 * step : 0.0) << row << " " << token;
    }
  }
}

TEST(TokenRateQuantiser, ClassesCountWithTheirEntropy) {
  RatedSample sample;
  // No component is sent of class 127 or of 126: what is left are the classes, a bit each.
  std::vector<int8_t> classes(48, 127);
  const size_t of_one = sample.encode(classes).size();
  for (size_t i = 0; i < 24; ++i) classes[2 * i] = 126;
  EXPECT_EQ(sample.encode(classes).size(), of_one + 6);
}

TEST_F(TokenRate, IsMeasuredInASearchAndNeverWritten) {
  RdCalibrationOptions options;
  options.plans = {make_plan({.exact_layers = 1, .group = 2, .native = {}}, models_.model("base").config().layers)};
  options.ratios = {8, 24};
  options.experiment.suffix = 24;
  const CalibrationInput input = models_.input("base", "tuned");
  const RdCalibrationResult plain = calibrate_rd(input, options);
  options.variants = {RdVariant::kTokenRateBound, RdVariant::kFull, RdVariant::kTokenRateLearned};
  const RdCalibrationResult searched = calibrate_rd(input, options);
  EXPECT_EQ(searched.encoder.rd, plain.encoder.rd);
  EXPECT_EQ(searched.decoders.front().levels.front().kl, plain.decoders.front().levels.front().kl);
  ASSERT_EQ(searched.search.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(searched.search[i].variant, options.variants[i]);
    EXPECT_EQ(searched.search[i].levels.size(), 2U);
  }
  EXPECT_NE(searched.search[0].levels[1].kl, searched.search[1].levels[1].kl);
  EXPECT_NE(searched.search[2].levels[1].kl, searched.search[1].levels[1].kl);
}

}  // namespace
}  // namespace scd
