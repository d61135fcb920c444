#include "kernels/device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <vector>

#include "tests/support/gpu.h"

namespace scd::kernels {
namespace {

TEST(Placement, PartsOfAnArenaLieBehindOneAnother) {
  const std::vector<size_t> sizes{1, 256, 257, 1000};
  const Placement arena = Placement::arena(Device::kCpu, Placement::arena_bytes(sizes));
  std::vector<DeviceBuffer> parts;
  for (const size_t size : sizes) parts.emplace_back(arena, size);
  EXPECT_EQ(arena.left(), 0u);
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(parts[i].size(), sizes[i]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(parts[i].data()) % 256, 0u);
    if (i > 0) {
      EXPECT_EQ(parts[i].data(), parts[i - 1].data() + (sizes[i - 1] + 255) / 256 * 256);
    }
    std::memset(parts[i].data(), static_cast<int>(i), sizes[i]);
  }
  for (size_t i = 0; i < parts.size(); ++i) EXPECT_EQ(parts[i].data()[sizes[i] - 1], static_cast<std::byte>(i));
  EXPECT_THROW(DeviceBuffer(arena, 1), std::invalid_argument);
  EXPECT_EQ(DeviceBuffer(arena, 0).size(), 0u) << "nothing has room everywhere";
}

TEST(Placement, AnArenaLivesAsLongAsItsParts) {
  std::optional<Placement> arena = Placement::arena(Device::kCpu, 512);
  DeviceBuffer first(*arena, 10);
  arena.reset();
  DeviceBuffer moved;
  moved = std::move(first);
  std::memset(moved.data(), 7, 10);
  const DeviceBuffer same = moved.shared();
  moved = DeviceBuffer();
  EXPECT_EQ(same.data()[9], std::byte{7});
  EXPECT_THROW(DeviceBuffer(Device::kCpu, 10).shared(), std::invalid_argument);
}

TEST(Placement, AnArenaOnAGpuIsHeldOnceAndGivenBackWhole) {
  SCD_SKIP_WITHOUT_GPU();
  const size_t before = gpu_held_bytes();
  {
    const Placement arena = Placement::arena(Device::kGpu, 4096);
    EXPECT_EQ(gpu_held_bytes(), before + 4096);
    const std::vector<float> values{1, 2, 3};
    const DeviceVector vector(values, arena);
    EXPECT_EQ(vector.on_host(), values);
    EXPECT_EQ(gpu_held_bytes(), before + 4096);
    EXPECT_EQ(arena.left(), 4096u - 256);
  }
  EXPECT_EQ(gpu_held_bytes(), before);
}

}  // namespace
}  // namespace scd::kernels
