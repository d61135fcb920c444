#include "decode_server/level_policy.h"

#include <gmock/gmock.h>

namespace scd {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

ArtifactDecoder three_levels() {
  ArtifactDecoder artifact;
  artifact.levels = {{1000, 4, 0.005, 0.01}, {500, 8, 0.04, 0.05}, {100, 40, 0.09, 0.3}};
  artifact.prediction = artifact.levels.front();
  return artifact;
}

CodecOptions options(int32_t level, double max_kl, int64_t target_ms) {
  CodecOptions codec;
  codec.level = level;
  codec.max_kl = max_kl;
  codec.ttft_target = milliseconds(target_ms);
  return codec;
}

TEST(LevelPolicy, WithoutATargetOrAMeasurementTheLevelIsFixed) {
  const LevelPolicy none(options(-1, 0, 0), three_levels());
  EXPECT_EQ(none.choose(1000, 1e6), 1);  // the middle one
  const LevelPolicy unmeasured(options(-1, 0.1, 50), three_levels());
  EXPECT_EQ(unmeasured.choose(1000, 0), 1);  // the coarsest within max_kl
}

TEST(LevelPolicy, TheFinestLevelThatCrossesTheLinkInTimeIsTaken) {
  const LevelPolicy policy(options(-1, 0, 100), three_levels());
  const double rate = 1e7;  // 1 MB in 100 ms
  EXPECT_EQ(policy.choose(1000, rate), 0);
  EXPECT_EQ(policy.choose(1001, rate), 1);
  EXPECT_EQ(policy.choose(2001, rate), 2);
  EXPECT_EQ(policy.choose(1'000'000, rate), 2);  // nothing is in time: the fewest bytes
}

TEST(LevelPolicy, MaxKlBoundsWhatASlowLinkMayCost) {
  const LevelPolicy policy(options(-1, 0.1, 100), three_levels());
  EXPECT_EQ(policy.choose(1000, 1000), 1);
}

TEST(LevelPolicy, ANamedLevelIsKept) {
  const LevelPolicy named(options(0, 0, 100), three_levels());
  EXPECT_EQ(named.choose(1000, 1000), 0);
}

TEST(LevelPolicy, WhatTheArtifactCannotGiveIsRefused) {
  const auto refused = [](const CodecOptions& codec) {
    try {
      LevelPolicy policy(codec, three_levels());
      return std::string();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
      return std::string(error.what());
    }
  };
  EXPECT_THAT(refused(options(3, 0, 0)), HasSubstr("3 levels"));
  EXPECT_THAT(refused(options(-1, 0.001, 0)), HasSubstr("max_kl"));
  EXPECT_THAT(refused(options(2, 0.1, 0)), HasSubstr("max_kl"));
}

}  // namespace
}  // namespace scd
