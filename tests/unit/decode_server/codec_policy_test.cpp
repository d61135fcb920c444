#include "decode_server/codec_policy.h"

#include <gmock/gmock.h>

#include <limits>

namespace scd {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// Raw and lossless break even at 2 MB/s: lossless saves 400 bytes a token for 200 us of coding. The packed form breaks
// even with entropy coding at 1 MB/s: 50 bytes more for 50 us less.
CoderCosts costs() {
  return {.raw = {1000, 100e-6},
          .lossless = {600, 300e-6},
          .entropy = {{200, 100e-6}, {100, 100e-6}},
          .packed = {{250, 50e-6}, {150, 50e-6}}};
}

ArtifactDecoder rd_artifact() {
  ArtifactDecoder artifact;
  artifact.codec = CodecId::kRd;
  artifact.levels = {{200, 5, 0.01}, {100, 10, 0.05}};
  artifact.prediction = artifact.levels.front();
  return artifact;
}

constexpr CodecChoice kRawChoice{.id = CodecId::kRaw, .rank = {}};
constexpr CodecChoice kRdChoice{.id = CodecId::kRd, .rank = {.level = 1}};

CodecQuestion exact_of_one_model() {
  return {.mode = TransferMode::kExact, .codec = kRawChoice, .same_model = true, .tokens = 1000};
}
CodecQuestion auto_of_one_model(CodecChoice codec) {
  return {.mode = TransferMode::kAuto, .codec = codec, .same_model = true, .tokens = 1000};
}

// A transfer over a link of so many bytes a second; work of 1000 tokens.
TransferCost transfer(CodecChoice codec, double rate, milliseconds encode = {}, milliseconds rebuild = {}) {
  return {.codec = codec,
          .tokens = 1000,
          .fresh_tokens = encode.count() > 0 ? 1000 : 0,
          .wire_bytes = static_cast<int64_t>(rate),
          .wire = seconds(1),
          .encode = encode,
          .rebuild = rebuild};
}

class BitsKept : public ::testing::Test {
 protected:
  CodecId choose(double declared = 0, const std::string& endpoint = {}) {
    CodecQuestion question = exact_of_one_model();
    question.declared_bytes_per_second = declared;
    question.endpoint = endpoint;
    return policy_.choose(question).codec->id;
  }
  CodecPolicy policy_{CodecOptions{}, nullptr, costs()};
};

TEST_F(BitsKept, UnmeasuredTheyAreSentAsTheyAre) {
  EXPECT_EQ(choose(), CodecId::kRaw);
  EXPECT_EQ(choose(100e6), CodecId::kRaw);
}

TEST_F(BitsKept, ADeclarationThatIsNoneSaysNothing) {
  EXPECT_EQ(choose(-1), CodecId::kRaw);
  EXPECT_EQ(choose(std::numeric_limits<double>::quiet_NaN()), CodecId::kRaw);
}

TEST_F(BitsKept, EachPrefillServersLinkIsItsOwnAndANewOneIsTakenToBeLikeTheOthers) {
  TransferCost slow = transfer(kRawChoice, 0.5e6), fast = transfer(kRawChoice, 100e6);
  slow.endpoint = "slow";
  fast.endpoint = "fast";
  policy_.observe(slow);
  EXPECT_EQ(choose(0, "new"), CodecId::kLossless);
  policy_.observe(fast);
  EXPECT_EQ(choose(0, "slow"), CodecId::kLossless);
  EXPECT_EQ(choose(0, "fast"), CodecId::kRaw);
  EXPECT_EQ(choose(0, "slow"), CodecId::kLossless) << "what one was chosen for another is no habit";
}

TEST_F(BitsKept, ADeclaredLinkSlowerThanTheCoderTakesLosslessAtOnce) { EXPECT_EQ(choose(0.5e6), CodecId::kLossless); }

TEST_F(BitsKept, AMeasuredLinkDecidesAndADeclaredOneBoundsIt) {
  policy_.observe(transfer(kRawChoice, 0.5e6));
  EXPECT_EQ(choose(), CodecId::kLossless);
  CodecPolicy fast(CodecOptions{}, nullptr, costs());
  fast.observe(transfer(kRawChoice, 100e6));
  CodecQuestion question = exact_of_one_model();
  EXPECT_EQ(fast.choose(question).codec->id, CodecId::kRaw);
  question.declared_bytes_per_second = 0.5e6;
  EXPECT_EQ(fast.choose(question).codec->id, CodecId::kLossless);
}

// Around 2 MB/s: 600 us a token either way; 10 % better is 0.0017 / 0.0020 MB/us away.
TEST_F(BitsKept, NearTheBorderTheLastChoiceIsKept) {
  EXPECT_EQ(choose(1.9e6), CodecId::kRaw);
  EXPECT_EQ(choose(1.0e6), CodecId::kLossless);  // 1100 us raw, 900 us lossless
  EXPECT_EQ(choose(1.9e6), CodecId::kLossless);
  EXPECT_EQ(choose(2.2e6), CodecId::kLossless);  // 555 us raw, 573 us lossless
  EXPECT_EQ(choose(4.0e6), CodecId::kRaw);       // 350 us raw, 450 us lossless
  EXPECT_EQ(choose(1.9e6), CodecId::kRaw);
}

TEST_F(BitsKept, AChangeIsToldOnce) {
  CodecQuestion question = exact_of_one_model();
  EXPECT_TRUE(policy_.choose(question).changed);
  EXPECT_FALSE(policy_.choose(question).changed);
  question.declared_bytes_per_second = 0.5e6;
  const CodecDecision decision = policy_.choose(question);
  EXPECT_TRUE(decision.changed);
  EXPECT_THAT(decision.reason, HasSubstr("at 0.004 Gbit/s a token takes raw 2100 us, lossless 1500 us"));
  EXPECT_FALSE(policy_.choose(question).changed);
}

TEST_F(BitsKept, OfTwoModelsTheyAreWorthNothing) {
  CodecQuestion question = exact_of_one_model();
  question.same_model = false;
  EXPECT_FALSE(policy_.choose(question).codec.has_value());
  question.mode = TransferMode::kAuto;
  const CodecDecision decision = policy_.choose(question);
  EXPECT_FALSE(decision.codec.has_value());
  EXPECT_THAT(decision.reason, HasSubstr("models differ"));
}

class BreakEven : public ::testing::Test {
 protected:
  // rd at level 1 takes 100 bytes and 500 us of work a token, raw 1000 bytes and 100 us: 2.25 MB/s is the border.
  void observe_rd(double rate) { policy_.observe(transfer(kRdChoice, rate, milliseconds(200), milliseconds(300))); }
  CodecDecision choose(CodecQuestion question) { return policy_.choose(question); }
  CodecDecision choose() { return choose(auto_of_one_model(kRdChoice)); }

  ArtifactDecoder artifact_ = rd_artifact();
  CodecPolicy policy_{CodecOptions{}, &artifact_, costs()};
};

TEST_F(BreakEven, UnmeasuredTheArtifactsCodecIsTaken) {
  EXPECT_EQ(*choose().codec, kRdChoice);
  EXPECT_THAT(choose().reason, HasSubstr("not measured yet"));
  CodecQuestion declared = auto_of_one_model(kRdChoice);
  declared.declared_bytes_per_second = 1e9;  // says nothing of what rebuilding costs
  EXPECT_EQ(*choose(declared).codec, kRdChoice);
}

TEST_F(BreakEven, ASlowLinkTakesCodes) {
  observe_rd(0.1e6);
  EXPECT_EQ(*choose().codec, kRdChoice);
}

TEST_F(BreakEven, AFastLinkTakesRaw) {
  observe_rd(100e6);
  const CodecDecision decision = choose();
  EXPECT_EQ(*decision.codec, kRawChoice);
  EXPECT_TRUE(decision.changed);
  EXPECT_THAT(decision.reason, HasSubstr("at 0.8 Gbit/s a token takes rd 501 us, raw 110 us, lossless 306 us"));
  EXPECT_EQ(*policy_.present().codec, kRawChoice);
  EXPECT_EQ(policy_.present().reason, decision.reason);
}

TEST_F(BreakEven, LosslessLiesBetween) {
  policy_.observe(transfer(kRdChoice, 1e6, milliseconds(500), milliseconds(800)));
  EXPECT_EQ(choose().codec->id, CodecId::kLossless);  // 1400 us rd, 1100 us raw, 900 us lossless
}

TEST_F(BreakEven, NearTheBorderTheLastChoiceIsKept) {
  observe_rd(2.3e6);  // raw would be 535 us, rd is 543 us
  EXPECT_EQ(*choose().codec, kRdChoice);
  observe_rd(100e6);
  EXPECT_EQ(*choose().codec, kRawChoice);
  for (int i = 0; i < 100; ++i) policy_.observe(transfer(kRawChoice, 2.2e6, {}, milliseconds(100)));
  EXPECT_EQ(*choose().codec, kRawChoice);  // raw is 555 us, rd would be 545 us
  for (int i = 0; i < 100; ++i) policy_.observe(transfer(kRawChoice, 0.5e6, {}, milliseconds(100)));
  EXPECT_EQ(*choose().codec, kRdChoice);
}

TEST_F(BreakEven, WhatRawWorkIsObservedToBeCounts) {
  observe_rd(100e6);
  policy_.observe(transfer(kRawChoice, 100e6, milliseconds(500), milliseconds(500)));
  EXPECT_EQ(*choose().codec, kRdChoice);
}

TEST_F(BreakEven, AnExplicitChoiceWins) {
  observe_rd(100e6);
  const CodecQuestion named{.mode = TransferMode::kCodec, .codec = kRdChoice, .same_model = true, .tokens = 1000};
  EXPECT_EQ(*choose(named).codec, kRdChoice);
  EXPECT_EQ(choose(named).reason, "");
}

TEST_F(BreakEven, ModelsThatDifferGetCodesHoweverFastTheLinkIs) {
  observe_rd(100e6);
  CodecQuestion question = auto_of_one_model(kRdChoice);
  question.same_model = false;
  EXPECT_EQ(*choose(question).codec, kRdChoice);
  EXPECT_THAT(choose(question).reason, HasSubstr("models differ"));
}

TEST_F(BreakEven, AnArtifactOfAnotherProducerIsNoCandidate) {
  CodecQuestion question = auto_of_one_model(kRdChoice);
  question.artifact_fits = false;
  EXPECT_EQ(*choose(question).codec, kRawChoice);
}

TEST_F(BreakEven, ExactRequestsGetNoCodes) {
  observe_rd(0.1e6);
  EXPECT_EQ(choose(exact_of_one_model()).codec->id, CodecId::kLossless);
}

TEST_F(BreakEven, TheLevelFollowsTheLink) {
  CodecOptions options;
  options.ttft_target = milliseconds(100);
  CodecPolicy policy(options, &artifact_, costs());
  CodecQuestion question{.mode = TransferMode::kCodec, .codec = kRdChoice, .level_open = true, .tokens = 1000};
  question.declared_bytes_per_second = 1e6;
  EXPECT_EQ(policy.choose(question).codec->rank.level, 1);
  question.declared_bytes_per_second = 3e6;
  EXPECT_EQ(policy.choose(question).codec->rank.level, 0);
  question.level_open = false;
  question.codec.rank.level = 1;
  EXPECT_EQ(policy.choose(question).codec->rank.level, 1);
}

class Form : public ::testing::Test {
 protected:
  CodecDecision choose(double declared, bool open = true) {
    return policy_.choose({.mode = TransferMode::kCodec,
                           .codec = kRdChoice,
                           .form_open = open,
                           .tokens = 1000,
                           .declared_bytes_per_second = declared});
  }
  ArtifactDecoder artifact_ = rd_artifact();
  CodecPolicy policy_{CodecOptions{}, &artifact_, costs()};
};

TEST_F(Form, IsPackedWhereTheLinkOutrunsTheEntropyCoder) {
  EXPECT_FALSE(choose(0).codec->rank.packed);
  EXPECT_FALSE(choose(0.5e6).codec->rank.packed);
  const CodecDecision decision = choose(100e6);
  EXPECT_TRUE(decision.codec->rank.packed);
  EXPECT_TRUE(decision.changed);
  EXPECT_THAT(decision.reason, HasSubstr("packed"));
  EXPECT_FALSE(choose(100e6).changed);
}

TEST_F(Form, IsKeptNearTheBorder) {
  EXPECT_FALSE(choose(1.1e6).codec->rank.packed);
  EXPECT_TRUE(choose(2e6).codec->rank.packed);
  EXPECT_TRUE(choose(0.9e6).codec->rank.packed);  // 217 us packed, 211 us entropy-coded
  EXPECT_FALSE(choose(0.2e6).codec->rank.packed);
}

TEST_F(Form, ThatIsNamedWins) { EXPECT_FALSE(choose(100e6, false).codec->rank.packed); }

TEST(MeasuredRate, AveragesAndIgnoresWhatSaysNothing) {
  MeasuredRate rate;
  EXPECT_FALSE(rate.measured());
  rate.observe(0, 1);
  rate.observe(1, 0);
  EXPECT_FALSE(rate.measured());
  rate.observe(10e6, 1);
  rate.observe(1000, 1);
  EXPECT_NEAR(rate.per_second(), 8e6, 1e3);  // a fifth of the way down
}

}  // namespace
}  // namespace scd
