#include "common/device/needing_memory.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "kernels/device.h"

namespace scd {
namespace {

const MemoryUse kUse{"workspaces of a step of 8192 tokens", "lower limits.batch_tokens"};

TEST(NeedingMemory, GivesWhatTheWorkGives) {
  int value = 3;
  EXPECT_EQ(needing_memory(kUse, [] { return 7; }), 7);
  needing_memory(kUse, [&]() -> int& { return value; }) = 4;
  EXPECT_EQ(value, 4);
}

TEST(NeedingMemory, SaysWhatItWasForTheNumbersAndWhatToLower) {
  try {
    needing_memory(kUse,
                   [] { throw kernels::OutOfDeviceMemory("GPU memory: 300 MiB asked for, 20 of 16384 MiB are free"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_STREQ(
        error.what(),
        "no memory for workspaces of a step of 8192 tokens (GPU memory: 300 MiB asked for, 20 of 16384 MiB are "
        "free); lower limits.batch_tokens");
  }
}

TEST(NeedingMemory, LeavesOtherErrorsAsTheyAre) {
  EXPECT_THROW(needing_memory(kUse, [] { throw std::out_of_range("no"); }), std::out_of_range);
}

}  // namespace
}  // namespace scd
