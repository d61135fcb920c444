#include "kernels/gpu_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/support/gpu.h"

namespace scd::kernels {
namespace {

using ::testing::HasSubstr;

// Where it was built, or among the libraries that came with the tests.
std::string fake_nvml() {
  const std::filesystem::path built = SCD_FAKE_NVML;
  return std::filesystem::exists(built) ? built : built.filename();
}

TEST(GpuDriver, ItsVersionIsFoundInWhatEitherKernelModuleSays) {
  EXPECT_EQ(
      driver_version_in("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
                        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"),
      "535.183.01");
  EXPECT_EQ(driver_version_in("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\n"),
            "580.159.04");
}

TEST(GpuDriver, TextWithoutAVersionHasNone) {
  EXPECT_EQ(driver_version_in(""), "");
  EXPECT_EQ(driver_version_in("GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"), "");
  EXPECT_EQ(driver_version_in("NVRM version: NVIDIA UNIX x86_64 Kernel Module  unknown 7 .5 5.\n"), "");
}

TEST(GpuDriver, ClocksAreReadOfTheGpuAtItsPlaceAndWhatCannotBeReadHasAReason) {
  const Nvml nvml(fake_nvml());
  EXPECT_EQ(nvml.problem(), "");
  const GpuClocks clocks = nvml.clocks("00000000:1b:00.0");
  EXPECT_EQ(clocks.sm_mhz, 1755);
  EXPECT_EQ(clocks.sm_max_mhz, 1980);
  EXPECT_EQ(clocks.memory_mhz, 2619);
  EXPECT_EQ(clocks.memory_max_mhz, std::nullopt);
  EXPECT_EQ(clocks.problem, "nvmlDeviceGetMaxClockInfo: Not Supported");
}

TEST(GpuDriver, AGpuThatIsNotThereIsNamed) {
  const GpuClocks clocks = Nvml(fake_nvml()).clocks("ffffffff:ff:1f.0");
  EXPECT_EQ(clocks.sm_mhz, std::nullopt);
  EXPECT_EQ(clocks.problem, "the GPU at ffffffff:ff:1f.0: Not Found");
}

TEST(GpuDriver, ClocksAreReadWhileAGpuMultiplies) {
  SCD_SKIP_WITHOUT_GPU();
  const GpuClocks clocks = clocks_under_load(Nvml(fake_nvml()), 64);
  EXPECT_EQ(clocks.sm_mhz, 1755);
  EXPECT_EQ(clocks.problem, "nvmlDeviceGetMaxClockInfo: Not Supported");
}

TEST(GpuDriver, AGpuThatCannotBeKeptBusyHasNoPresentClocks) {
  SCD_SKIP_WITHOUT_GPU();
  const GpuClocks clocks = clocks_under_load(Nvml(fake_nvml()), int64_t{1} << 22);
  EXPECT_FALSE(clocks.sm_mhz || clocks.memory_mhz);
  EXPECT_EQ(clocks.sm_max_mhz, 1980);
  EXPECT_THAT(clocks.problem, HasSubstr("could not be kept busy"));
}

TEST(GpuDriver, WithoutItsLibraryNoClockIsMadeUp) {
  const Nvml nvml("libno-such-driver.so.1");
  const GpuClocks clocks = nvml.clocks("00000000:1b:00.0");
  EXPECT_THAT(clocks.problem, HasSubstr("libno-such-driver.so.1"));
  EXPECT_FALSE(clocks.sm_mhz || clocks.sm_max_mhz || clocks.memory_mhz || clocks.memory_max_mhz);
  EXPECT_EQ(clocks_under_load(nvml).problem, clocks.problem);
}

TEST(GpuDriver, ALibraryThatIsNotTheDriversIsRefused) {
  EXPECT_THAT(Nvml("libc.so.6").clocks("00000000:1b:00.0").problem, HasSubstr("has no nvmlInit_v2"));
}

}  // namespace
}  // namespace scd::kernels
