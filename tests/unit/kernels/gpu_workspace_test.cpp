#include "kernels/gpu_workspace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/device.h"
#include "kernels/grow_buffer.h"
#include "tests/unit/kernels/on_cuda.h"

namespace scd::kernels {
namespace {

TEST(FreeStretches, ThePartIsCutFromTheSmallestThatHoldsIt) {
  FreeStretches stretches(1000);
  EXPECT_EQ(stretches.take(100), 0u);
  EXPECT_EQ(stretches.take(200), 100u);
  EXPECT_EQ(stretches.take(100), 300u);
  stretches.give_back(100);
  EXPECT_EQ(stretches.take(600), 400u) << "600 are left at the end, 200 in the middle";
  EXPECT_EQ(stretches.take(150), 100u);
  EXPECT_EQ(stretches.take(100), std::nullopt) << "50 are left";
  EXPECT_EQ(stretches.free_bytes(), 50u);
}

TEST(FreeStretches, WhatIsGivenBackTwiceIsRefused) {
  FreeStretches stretches(1000);
  ASSERT_EQ(stretches.take(100), 0u);
  stretches.give_back(0);
  EXPECT_THROW(stretches.give_back(0), std::invalid_argument);
  EXPECT_THROW(stretches.give_back(900), std::invalid_argument);
}

// Against a byte map: parts never overlap, and all of them given back are one stretch again, in whatever order.
TEST(FreeStretches, PartsNeverOverlapAndJoinAgain) {
  constexpr size_t kBytes = 500;
  struct Part {
    size_t begin, bytes;
  };
  std::mt19937 random(7);
  const auto below = [&](size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); };
  FreeStretches stretches(kBytes);
  std::vector<bool> taken(kBytes, false);
  std::vector<Part> parts;
  const auto give_back = [&](size_t which) {
    const Part part = parts[which];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(which));
    for (size_t i = 0; i < part.bytes; ++i) taken[part.begin + i] = false;
    stretches.give_back(part.begin);
  };
  for (int round = 0; round < 2000; ++round) {
    const size_t bytes = 1 + below(90);
    if (const auto begin = stretches.take(bytes)) {
      ASSERT_LE(*begin + bytes, kBytes);
      for (size_t i = 0; i < bytes; ++i) {
        ASSERT_FALSE(taken[*begin + i]);
        taken[*begin + i] = true;
      }
      parts.push_back({*begin, bytes});
    } else {
      give_back(below(parts.size()));
    }
    ASSERT_EQ(stretches.free_bytes(), static_cast<size_t>(std::count(taken.begin(), taken.end(), false)));
  }
  while (!parts.empty()) give_back(below(parts.size()));
  EXPECT_EQ(stretches.take(kBytes), 0u);
}

TEST(GpuWorkspaceTest, OfNothingThereIsNoPart) {
  const GpuWorkspace none(0);
  EXPECT_EQ(none.bytes(), 0u);
  EXPECT_EQ(none.used_bytes(), 0u);
  EXPECT_FALSE(GpuWorkspace::part(1).has_value());
}

TEST(GpuWorkspaceTest, BuffersOnAGpuAreParts) {
  SCD_SKIP_WITHOUT_GPU();
  const size_t before = gpu_held_bytes();
  {
    const GpuWorkspace workspace(10000);
    EXPECT_EQ(workspace.bytes(), 10240u) << "parts are aligned to 256 bytes";
    EXPECT_EQ(gpu_held_bytes(), before + 10240);
    DeviceBuffer first(Placement::workspace(Device::kGpu), 5000), second(Placement::workspace(Device::kGpu), 5120);
    EXPECT_EQ(second.data(), first.data() + 5120);
    EXPECT_EQ(workspace.used_bytes(), 10240u);
    const DeviceBuffer beside(Placement::workspace(Device::kGpu), 100);
    EXPECT_EQ(gpu_held_bytes(), before + 10240 + 100) << "there is no room left: it is made by itself";
    std::byte* const place = first.data();
    first = DeviceBuffer();
    EXPECT_EQ(workspace.used_bytes(), 5120u);
    GrowBuffer grows;
    EXPECT_EQ(grows.matrix(1, 1024, DType::kF32, Device::kGpu).data, place);
    const DeviceBuffer weights(Device::kGpu, 256);
    EXPECT_EQ(gpu_held_bytes(), before + 10240 + 100 + 256) << "what is no workspace is not made there";
  }
  EXPECT_EQ(gpu_held_bytes(), before);
}

TEST(GpuWorkspaceTest, PartsOnAGpuOutliveTheirWorkspace) {
  SCD_SKIP_WITHOUT_GPU();
  const size_t before = gpu_held_bytes();
  {
    DeviceBuffer part;
    {
      const GpuWorkspace workspace(4096);
      part = DeviceBuffer(Placement::workspace(Device::kGpu), 256);
    }
    EXPECT_EQ(gpu_held_bytes(), before + 4096);
    EXPECT_FALSE(GpuWorkspace::part(256).has_value()) << "of a workspace that is gone";
    clear({part.data(), 1, 64, 64, DType::kF32, Device::kGpu});
    synchronize(Device::kGpu);
  }
  EXPECT_EQ(gpu_held_bytes(), before);
}

TEST(GpuWorkspaceTest, AGpuMayHaveSeveral) {
  SCD_SKIP_WITHOUT_GPU();
  const GpuWorkspace first(1024), second(4096);
  const DeviceBuffer large(Placement::workspace(Device::kGpu), 2048), small(Placement::workspace(Device::kGpu), 512);
  EXPECT_EQ(first.used_bytes(), 512u);
  EXPECT_EQ(second.used_bytes(), 2048u);
}

}  // namespace
}  // namespace scd::kernels
