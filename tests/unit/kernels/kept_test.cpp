#include "kernels/kept.h"

#include <gtest/gtest.h>

#include <memory>

namespace scd::kernels::testing {
namespace {

using Thing = std::unique_ptr<int>;

Thing thing(int number) { return std::make_unique<int>(number); }

int number_of(Kept<Thing>& kept, size_t size) {
  const auto found = kept.take(size);
  return found ? *found->one : -1;
}

TEST(Kept, TheSmallestThatFitsIsTaken) {
  Kept<Thing> kept(1000);
  kept.keep(thing(1), 100, 100);
  kept.keep(thing(2), 60, 60);
  kept.keep(thing(3), 50, 50);
  EXPECT_EQ(number_of(kept, 55), 2);
  EXPECT_EQ(number_of(kept, 55), 1);
  EXPECT_EQ(number_of(kept, 55), -1) << "too small";
  EXPECT_EQ(number_of(kept, 20), -1) << "more than twice as large";
  EXPECT_EQ(number_of(kept, 50), 3);
  EXPECT_EQ(kept.bytes(), 0);
}

TEST(Kept, WhatWasKeptLongestMakesRoom) {
  Kept<Thing> kept(100);
  kept.keep(thing(1), 10, 40);
  kept.keep(thing(2), 20, 40);
  kept.keep(thing(3), 30, 50);
  EXPECT_EQ(kept.bytes(), 90);
  EXPECT_EQ(number_of(kept, 10), 2);
  EXPECT_EQ(number_of(kept, 30), 3);
}

TEST(Kept, WhatIsLargerThanAllMayBeIsNotKept) {
  Kept<Thing> kept(100);
  kept.keep(thing(1), 10, 40);
  kept.keep(thing(2), 200, 101);
  EXPECT_EQ(kept.bytes(), 40);
  EXPECT_EQ(number_of(kept, 200), -1);
  EXPECT_EQ(number_of(kept, 10), 1);
}

TEST(Kept, SizesArePowersOfTwoAndNotTooSmall) {
  constexpr size_t kKiB = 1024;
  EXPECT_EQ(kept_size(0), 64 * kKiB);
  EXPECT_EQ(kept_size(64 * kKiB), 64 * kKiB);
  EXPECT_EQ(kept_size(64 * kKiB + 1), 128 * kKiB);
}

TEST(Kept, NothingIsLeftAfterClear) {
  Kept<Thing> kept(100);
  kept.keep(thing(1), 10, 90);
  kept.clear();
  kept.keep(thing(2), 20, 90);
  EXPECT_EQ(kept.bytes(), 90);
  EXPECT_EQ(number_of(kept, 10), 2);
}

}  // namespace
}  // namespace scd::kernels::testing
