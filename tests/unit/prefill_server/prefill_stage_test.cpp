#include "prefill_server/prefill/prefill_stage.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <semaphore>
#include <string>
#include <thread>

#include "common/model/make_model.h"
#include "tests/unit/prefill_server/quiet_jobs.h"

namespace scd {
namespace {

using namespace std::chrono_literals;

// Steps of 32 tokens, as many as the test lets begin.
class PrefillStageTest : public ::testing::Test {
 protected:
  static std::filesystem::path directory() {
    return std::filesystem::temp_directory_path() / ("scd_prefill_stage_" + std::to_string(getpid()));
  }
  static Model make_and_load() {
    make_model({.shape = "tiny", .dtype = "float32", .family = "llama"}, directory());
    Model model = Model::load({.directory = directory(), .adapter = {}, .precision = kernels::DType::kF32});
    std::filesystem::remove_all(directory());
    return model;
  }

  void TearDown() override { let_go_.release(1000); }

  void start(int32_t max_computing) {
    stage_ = std::make_unique<PrefillStage>(
        PrefillStage::Args{.model = model_,
                           .cache = cache_,
                           .spans = spans_,
                           .step_tokens = 32,
                           .chunk_tokens = 16,
                           .max_computing = max_computing,
                           .max_unsent_bytes = 0,
                           .before = [](const PrefillStage::Job&) { return true; },
                           .on_step =
                               [this](std::span<const StepPart>) {
                                 begun_.release();
                                 let_go_.acquire();
                               },
                           .on_step_end = [this] { ended_.release(); },
                           .on_residual = [](const PrefillStage::Job&, const ResidualStream&) {},
                           .on_layer = [](const PrefillStage::Job&, const ComputedLayer&) {}});
    stage_->warm();
  }
  PrefillStage::Job submit(int64_t tokens, uint64_t unsent_bytes = 0) {
    auto job =
        testing::quiet_job(tokens, encoder_, [this](PrefillJob&, const std::optional<Failure>&) { stage_->wake(); });
    job->outbox.unsent_bytes = unsent_bytes;
    stage_->submit(job);
    return job;
  }
  static bool taken(std::counting_semaphore<>& from) { return from.try_acquire_for(20s); }
  static int64_t spans_of(const PrefillJob& job, PrefillPart part) {
    return std::ranges::count(job.spans.sorted(), part, &PrefillSpan::part);
  }

  const Model model_ = make_and_load();
  KvCache cache_{model_.config().kv_shape(kernels::DType::kF32), 32};
  const testing::EmptyEncoder encoder_{model_.config().layers};
  QueuedSpans spans_;
  std::counting_semaphore<> begun_{0}, let_go_{0}, ended_{0};
  std::unique_ptr<PrefillStage> stage_;
};

TEST_F(PrefillStageTest, PromptsOfAStepShareItsTimeAndThoseLeftOutWait) {
  start(3);
  const auto long_one = submit(64);
  ASSERT_TRUE(taken(begun_));
  const auto one = submit(16), other = submit(16);
  let_go_.release(3);
  for (int step = 0; step < 3; ++step) ASSERT_TRUE(taken(ended_));
  stage_->stop();  // a step is counted behind its end
  EXPECT_EQ(stage_->steps().prompts, 4U);
  EXPECT_EQ(spans_of(*long_one, PrefillPart::kQueue), 2) << "until its turn, and the step of the other two";
  EXPECT_EQ(spans_of(*one, PrefillPart::kQueue), 1);
  EXPECT_EQ(long_one->spans.computed(), long_one->spans.total(PrefillPart::kPrefill));
  for (const auto& job : {one, other}) {
    EXPECT_EQ(spans_of(*job, PrefillPart::kPrefill), model_.config().layers);
    EXPECT_NEAR(static_cast<double>(2 * job->spans.computed().count()),
                static_cast<double>(job->spans.total(PrefillPart::kPrefill).count()), 2.0 * model_.config().layers);
  }
}

TEST_F(PrefillStageTest, TheOnlyPlaceIsFreeOnceAJobWithoutRoomEnds) {
  start(1);
  const auto blocked = submit(64, /*unsent_bytes=*/1);
  while (stage_->computing() == 0) std::this_thread::yield();
  const auto waiting = submit(16);
  EXPECT_FALSE(begun_.try_acquire_for(100ms)) << "the first has no room";
  blocked->fail({ErrorCode::kCancelled, "the consumer has gone"});
  EXPECT_TRUE(taken(begun_));
  EXPECT_EQ(stage_->waiting(), 0U);
}

}  // namespace
}  // namespace scd
