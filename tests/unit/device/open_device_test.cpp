#include "common/device/open_device.h"

#include <gmock/gmock.h>

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

}  // namespace
}  // namespace scd
