#include "common/device/open_device.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "common/base/error.h"
#include "kernels/device.h"

namespace scd {
namespace {

using ::testing::HasSubstr;

TEST(OpenDevice, TakesTheCpu) { EXPECT_EQ(open_device("cpu"), kernels::Device::kCpu); }

TEST(OpenDevice, NamesWhatItExpects) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cudax", "CPU", "cuda:99999999999"}) {
    try {
      open_device(name);
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << name;
      EXPECT_THAT(error.what(), HasSubstr("expected cpu, cuda or cuda:N")) << name;
    }
  }
}

TEST(OpenDevice, SaysWhyAGpuCannotBeUsed) {
  if (kernels::gpu_device().usable) GTEST_SKIP() << "a GPU is here: " << kernels::gpu_device().name;
  try {
    open_device("cuda");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
    EXPECT_THAT(error.what(), HasSubstr(kernels::gpu_device().reason));
  }
}

TEST(OpenDevice, StreamsOfAGpuGetConnectionsOfTheirOwnUnlessTheEnvironmentSaysOtherwise) {
  constexpr const char* kConnections = "CUDA_DEVICE_MAX_CONNECTIONS";
  const auto open = [] {
    try {
      open_device("cuda");
    } catch (const Error&) {  // there is none
    }
  };
  unsetenv(kConnections);
  open();
  EXPECT_STREQ(getenv(kConnections), "32");
  setenv(kConnections, "4", 1);
  open();
  EXPECT_STREQ(getenv(kConnections), "4");
}

}  // namespace
}  // namespace scd
