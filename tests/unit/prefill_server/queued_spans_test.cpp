#include "prefill_server/queued_spans.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "kernels/device.h"
#include "tests/unit/kernels/on_cuda.h"
#include "tests/unit/prefill_server/quiet_jobs.h"

namespace scd {
namespace {

using std::chrono::milliseconds;

class QueuedSpansTest : public ::testing::Test {
 protected:
  QueuedSpans::Job job() {
    return testing::quiet_job(
        16, encoder_, [](PrefillJob&, const std::optional<Failure>&) {}, 1);
  }
  static size_t count(const QueuedSpans::Job& job) { return job->spans.sorted().size(); }

  const testing::EmptyEncoder encoder_{2};
  QueuedSpans spans_;
};

TEST_F(QueuedSpansTest, OnTheCpuWhatReturnedIsDone) {
  const auto first = job(), second = job();
  spans_.begin(kernels::Device::kCpu);
  std::this_thread::sleep_for(milliseconds(4));
  spans_.end(PrefillPart::kPrefill, {{first, 0.75}, {second, 0.25}});
  ASSERT_EQ(count(first), 1u);
  ASSERT_EQ(count(second), 1u);
  const auto took = first->spans.total(PrefillPart::kPrefill);
  EXPECT_GE(took, milliseconds(4)) << "each waits for all of it";
  EXPECT_EQ(second->spans.total(PrefillPart::kPrefill), took);
  EXPECT_NEAR(static_cast<double>(first->spans.computed().count()), 0.75 * static_cast<double>(took.count()), 1);
  EXPECT_NEAR(static_cast<double>(second->spans.computed().count()), 0.25 * static_cast<double>(took.count()), 1);
  spans_.begin(kernels::Device::kCpu);
  spans_.end(PrefillPart::kEncode, {{first, 0}});
  EXPECT_EQ(count(first), 2u);
  EXPECT_EQ(count(second), 1u);
}

TEST_F(QueuedSpansTest, OfAGpuAllButTheLayerBeforeIsSeen) {
  SCD_SKIP_WITHOUT_GPU();
  const auto one = job();
  const kernels::DeviceBuffer memory(kernels::Device::kGpu, 4096);
  const auto add_layer = [&] {
    spans_.begin_layer();
    for (const PrefillPart part : {PrefillPart::kPrefill, PrefillPart::kEncode}) {
      spans_.begin(kernels::Device::kGpu);
      kernels::clear({memory.data(), 1, 1024, 1024, kernels::DType::kF32, kernels::Device::kGpu});
      spans_.end(part, {{one, 1}});
    }
  };
  for (size_t layer = 0; layer < 5; ++layer) {
    add_layer();
    EXPECT_EQ(count(one), layer < 1 ? 0u : 2 * (layer - 1)) << "layer " << layer;
  }
  spans_.settle();
  const std::vector<PrefillSpan> all = one->spans.sorted();
  ASSERT_EQ(all.size(), 10u);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].part, i % 2 == 0 ? PrefillPart::kPrefill : PrefillPart::kEncode);
    EXPECT_GE(all[i].end, all[i].start);
    if (i > 0) {
      EXPECT_GE(all[i].start, all[i - 1].end) << "the queue works on one after the other";
    }
  }
  EXPECT_EQ(one->spans.computed(), one->spans.total(PrefillPart::kPrefill));
}

// An encoder on the CPU beside a model on a GPU: whose events are neither lost nor waited for.
TEST_F(QueuedSpansTest, SpansOfAGpuAndOfTheCpuTakeTurns) {
  SCD_SKIP_WITHOUT_GPU();
  const auto one = job();
  for (size_t layer = 0; layer < 3; ++layer) {
    spans_.begin_layer();
    spans_.begin(kernels::Device::kGpu);
    spans_.end(PrefillPart::kPrefill, {{one, 1}});
    spans_.settle();
    spans_.begin(kernels::Device::kCpu);
    spans_.end(PrefillPart::kEncode, {{one, 0}});
    EXPECT_EQ(count(one), 2 * (layer + 1));
  }
}

TEST_F(QueuedSpansTest, OfAGpuAllUpToASpanAreSettled) {
  SCD_SKIP_WITHOUT_GPU();
  const auto one = job();
  std::vector<uint64_t> numbers;
  for (int i = 0; i < 4; ++i) {
    spans_.begin(kernels::Device::kGpu);
    numbers.push_back(spans_.end(PrefillPart::kEncode, {{one, 0}}));
  }
  EXPECT_EQ(count(one), 0u);
  spans_.settle_until(numbers[1]);
  EXPECT_EQ(count(one), 2u);
  spans_.settle_until(numbers[0]);
  EXPECT_EQ(count(one), 2u);
  spans_.settle_until(numbers[3]);
  EXPECT_EQ(count(one), 4u);
}

// What the host does before it looks is neither computing nor encoding.
TEST_F(QueuedSpansTest, AGpusWorkTakesItsOwnTime) {
  SCD_SKIP_WITHOUT_GPU();
  const auto one = job();
  const kernels::DeviceBuffer memory(kernels::Device::kGpu, 4096);
  const auto before = PrefillClock::now();
  spans_.begin_layer();
  spans_.begin(kernels::Device::kGpu);
  kernels::clear({memory.data(), 1, 1024, 1024, kernels::DType::kF32, kernels::Device::kGpu});
  spans_.end(PrefillPart::kPrefill, {{one, 1}});
  kernels::synchronize(kernels::Device::kGpu);
  const auto done = PrefillClock::now();
  std::this_thread::sleep_for(milliseconds(300));
  spans_.settle();
  const std::vector<PrefillSpan> all = one->spans.sorted();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_GE(all[0].start, before);
  EXPECT_LE(all[0].end, done + milliseconds(100)) << "and not when the host looked";
}

}  // namespace
}  // namespace scd
