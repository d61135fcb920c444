#include "prefill_server/encode/encode_stage.h"

#include <gtest/gtest.h>

#include "tests/unit/prefill_server/quiet_jobs.h"

namespace scd {
namespace {

TEST(EncodeStageTest, HoldsAJobNoLongerThanItsStep) {
  const testing::EmptyEncoder encoder(2);
  CodeCache cache(0, 16);
  EncodeStage stage(cache, [](const EncodeStage::Job&, CodeUnit) {});
  const auto job = testing::quiet_job(16, encoder, [](PrefillJob&, const std::optional<Failure>&) {});
  for (int step = 0; step < 2; ++step) {
    const auto held_before = job.use_count();
    {
      const StepPart part{job, {0, 16}};
      stage.begin_step({&part, 1});
    }
    EXPECT_EQ(job.use_count(), held_before + 1);
    stage.end_step();
    EXPECT_EQ(job.use_count(), held_before);
  }
}

}  // namespace
}  // namespace scd
