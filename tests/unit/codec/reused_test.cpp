#include "common/codec/reused.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace scd {
namespace {

// Of its own for each test: what is kept is the thread's.
template <int test>
struct Thing {
  size_t held = 0;
  int number = made++;
  size_t bytes() const { return held; }
  static inline int made = 0;
};

constexpr size_t kMiB = size_t{1} << 20;

TEST(Reused, OneOfTheSameSizeComesBack) {
  reused<Thing<1>>(9 * kMiB)->held = 9 * kMiB;
  EXPECT_EQ(reused<Thing<1>>(16 * kMiB)->number, 0);
  EXPECT_EQ(reused<Thing<1>>(8 * kMiB)->number, 0) << "and for what is half as large";
}

TEST(Reused, SmallOnesAreNotGrownWhileALargeOneLiesIdle) {
  using Mine = Thing<2>;
  {
    const auto large = reused<Mine>(64 * kMiB), small = reused<Mine>(kMiB);
    large->held = 64 * kMiB;
    small->held = kMiB;
  }
  for (int turn = 0; turn < 3; ++turn) {
    const auto small = reused<Mine>(kMiB), large = reused<Mine>(64 * kMiB);
    EXPECT_EQ(small->held, kMiB);
    EXPECT_EQ(large->held, 64 * kMiB);
  }
  EXPECT_EQ(Mine::made, 2);
}

TEST(Reused, ManySmallOnesAreKeptAndFewLargeOnes) {
  using Mine = Thing<3>;
  const auto use = [](size_t count, size_t bytes) {
    std::vector<std::shared_ptr<Mine>> all;
    for (size_t i = 0; i < count; ++i) {
      all.push_back(reused<Mine>(bytes));
      all.back()->held = bytes;
    }
  };
  use(10, kMiB);
  use(10, kMiB);
  EXPECT_EQ(Mine::made, 10);
  use(4, 512 * kMiB);
  EXPECT_EQ(unused_of_thread<Mine>().bytes(), 1024 * kMiB) << "two of them, for which the small ones went";
  use(2, 512 * kMiB);
  EXPECT_EQ(Mine::made, 14);
}

}  // namespace
}  // namespace scd
