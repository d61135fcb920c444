#include "common/base/send_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "common/base/byte_buffer.h"

namespace scd {
namespace {

constexpr size_t kUnit = SendMemory::kAlignment;

TEST(SendMemory, GivesNothingBeforeItIsReserved) {
  SendMemory memory;
  EXPECT_EQ(memory.take(1), nullptr);
  EXPECT_TRUE(memory.region().empty());
  EXPECT_TRUE(memory.reserve(0));
  EXPECT_EQ(memory.take(1), nullptr);
}

TEST(SendMemory, GivesPlacesThatDoNotOverlapUntilItIsFull) {
  SendMemory memory;
  ASSERT_TRUE(memory.reserve(4 * kUnit));
  std::byte* const one = memory.take(1);
  std::byte* const two = memory.take(2 * kUnit);
  ASSERT_NE(one, nullptr);
  ASSERT_NE(two, nullptr);
  EXPECT_TRUE(two >= one + kUnit || one >= two + 2 * kUnit);
  EXPECT_EQ(memory.taken_bytes(), 3 * kUnit);
  EXPECT_EQ(memory.take(kUnit + 1), nullptr);
  EXPECT_NE(memory.take(kUnit), nullptr);
  EXPECT_EQ(memory.take(1), nullptr);
}

TEST(SendMemory, PlacesThatCameBackAreOneAgain) {
  for (const std::vector<size_t>& order : {std::vector<size_t>{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}}) {
    SendMemory memory;
    ASSERT_TRUE(memory.reserve(3 * kUnit));
    std::vector<std::byte*> taken;
    for (int i = 0; i < 3; ++i) taken.push_back(memory.take(kUnit));
    for (const size_t i : order) EXPECT_TRUE(memory.give_back(taken[i], kUnit));
    EXPECT_EQ(memory.taken_bytes(), 0U);
    EXPECT_NE(memory.take(3 * kUnit), nullptr);
  }
}

TEST(SendMemory, KnowsWhatIsNotItsOwn) {
  SendMemory memory;
  std::vector<std::byte> other(kUnit);
  EXPECT_FALSE(memory.give_back(other.data(), kUnit));
  ASSERT_TRUE(memory.reserve(kUnit));
  EXPECT_FALSE(memory.give_back(other.data(), kUnit));
}

TEST(SendMemory, ServesThreadsSideBySide) {
  SendMemory memory;
  ASSERT_TRUE(memory.reserve(size_t{1} << 20));
  const auto work = [&memory](unsigned seed) {
    std::minstd_rand random(seed);
    std::vector<std::pair<std::byte*, size_t>> taken;
    for (int i = 0; i < 5000; ++i) {
      if (taken.size() > 20 || (!taken.empty() && random() % 2 == 0)) {
        std::swap(taken[random() % taken.size()], taken.back());
        const auto [place, bytes] = taken.back();
        EXPECT_TRUE(std::all_of(place, place + bytes, [&](std::byte byte) { return byte == std::byte(seed); }));
        EXPECT_TRUE(memory.give_back(place, bytes));
        taken.pop_back();
      }
      const size_t bytes = 1 + random() % 5000;
      std::byte* const place = memory.take(bytes);
      if (place == nullptr) continue;
      std::fill_n(place, bytes, std::byte(seed));
      taken.emplace_back(place, bytes);
    }
    for (const auto& [place, bytes] : taken) EXPECT_TRUE(memory.give_back(place, bytes));
  };
  { const std::jthread one(work, 1U), other(work, 2U); }
  EXPECT_EQ(memory.taken_bytes(), 0U);
  EXPECT_NE(memory.take(size_t{1} << 20), nullptr);
}

TEST(ByteBuffer, LivesInTheMemoryOfTheProcessWhileItHasRoom) {
  ASSERT_TRUE(SendMemory::of_process().reserve(4 * kUnit));
  const std::span<std::byte> region = SendMemory::of_process().region();
  const auto inside = [&](const ByteBuffer& buffer) {
    return buffer.data() >= region.data() && buffer.data() < region.data() + region.size();
  };
  const ByteBuffer small(3 * kUnit), large(region.size());
  EXPECT_TRUE(inside(small));
  EXPECT_FALSE(inside(large));
  EXPECT_EQ(small, ByteBuffer(3 * kUnit));
}

}  // namespace
}  // namespace scd
