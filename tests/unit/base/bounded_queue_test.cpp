#include "common/threads/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace scd {
namespace {

TEST(BoundedQueue, hands_items_over_in_order_across_threads) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  std::jthread producer([&] {
    for (int i = 0; i < 100; ++i) queue.push(std::make_unique<int>(i));
    queue.close();
  });
  int expected = 0;
  while (auto item = queue.pop()) EXPECT_EQ(**item, expected++);
  EXPECT_EQ(expected, 100);
}

TEST(BoundedQueue, refuses_when_full_or_closed) {
  BoundedQueue<int> queue(1);
  EXPECT_TRUE(queue.try_push(1));
  EXPECT_FALSE(queue.try_push(2));
  queue.close();
  EXPECT_FALSE(queue.push(3));
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_EQ(queue.pop(), std::nullopt);
}

TEST(BoundedQueue, gives_up_at_the_deadline) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.pop_until(std::chrono::steady_clock::now() + std::chrono::milliseconds(5)), std::nullopt);
}

}  // namespace
}  // namespace scd
