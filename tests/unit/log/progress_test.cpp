#include "common/log/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace scd {
namespace {

// Captured standard error is no terminal.
TEST(Progress, ShortWorkSaysNothing) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("loading");
    progress.update(0.5);
    progress.finish("done");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, LongWorkPrintsALineEveryTwoSecondsAndTheEnd) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("fitting");
    std::this_thread::sleep_for(std::chrono::milliseconds(2050));  // the interval itself is what is tested
    progress.update(0.5, "loss 1.5");
    progress.update(0.6);
    progress.finish();
    progress.finish();
  }
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::MatchesRegex("fitting  50 % +2\\.. s, 2 s left  loss 1\\.5\nfitting 100 % +2\\.. s\n"));
}

}  // namespace
}  // namespace scd
