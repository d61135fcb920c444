#include "prefill_server/store/redis_node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "prefill_server/store/redis_reply_guard.h"
#include "tests/support/fake_redis.h"

namespace scd {
namespace {

using std::chrono::milliseconds;
using testing::FakeRedis;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr RedisReplyLimits kLimits{.value_bytes = 100, .all_bytes = 1000, .elements = 10};

// The same however the bytes are cut.
Result<Done> guarded(const std::string& bytes, const RedisReplyLimits& limits = kLimits) {
  RedisReplyGuard whole(limits), pieces(limits);
  const auto result = whole.take(bytes);
  Result<Done> last = Done{};
  for (const char byte : bytes) {
    if (last) last = pieces.take({&byte, 1});
  }
  EXPECT_EQ(result.ok(), last.ok()) << bytes;
  return result;
}

TEST(RedisReplyGuard, lets_answers_pass) {
  for (const char* bytes : {"+OK\r\n", "-ERR no\r\n", ":1\r\n", "$-1\r\n", "$0\r\n\r\n", "$3\r\na\r\n\r\n", "*-1\r\n",
                            "*2\r\n*3\r\n:0\r\n:1\r\n$1\r\nx\r\n$2\r\nyz\r\n+OK\r\n", "+a\rb\r\n+c\n\r\n"}) {
    EXPECT_TRUE(guarded(bytes).ok()) << bytes;
  }
}

TEST(RedisReplyGuard, refuses_what_would_take_much_memory_or_is_no_answer) {
  struct Case {
    std::string bytes, says;
  };
  for (const Case& each : std::vector<Case>{{"*1000000000\r\n", "10 elements"},
                                            {"*9223372036854775807\r\n", "10 elements"},
                                            {"*5\r\n*5\r\n*1\r\n", "10 elements"},
                                            {"$101\r\n", "101 bytes"},
                                            {"$99999999999999999999\r\n", "no number"},
                                            {"$0000000000000000000000000001\r\n", "no number"},
                                            {"$-2\r\n", "no number"},
                                            {"*x\r\n", "no number"},
                                            {"*\r\n", "no number"},
                                            {"\r\n", "unknown kind"},
                                            {"%1\r\n", "unknown kind"},
                                            // Only a whole line end ends a line: hiredis reads an array here.
                                            {"+a\n$20\r\n*1000000000\r\n", "10 elements"},
                                            {std::string(1001, '+'), "1000 bytes"}}) {
    const auto result = guarded(each.bytes);
    ASSERT_FALSE(result.ok()) << each.bytes;
    EXPECT_EQ(result.failure().code, ErrorCode::kDataLoss);
    EXPECT_THAT(result.failure().message, HasSubstr(each.says)) << each.bytes;
  }
  EXPECT_FALSE(guarded("*0\r\n*1\r\n", {.value_bytes = 100, .all_bytes = 1000}).ok()) << "no array is expected";
}

class RedisNodeTest : public ::testing::Test {
 protected:
  static std::unique_ptr<RedisNode> node(const FakeRedis& server) {
    return std::make_unique<RedisNode>(RedisNodeOptions{.address = parse_redis_address("k", server.url()),
                                                        .password = {},
                                                        .timeout = milliseconds(2000),
                                                        .most_value_bytes = 1000});
  }
  static std::vector<RedisAnswer> get(RedisNode& node, const Words& keys) {
    return node.get(keys, /*asking=*/false, RedisNode::Clock::now() + milliseconds(2000));
  }
};

TEST_F(RedisNodeTest, a_value_longer_than_a_chunk_can_be_is_a_failure) {
  const FakeRedis server([](const Words& words) {
    const size_t bytes = words.at(1) == "fits" ? 1000 : 1001;
    return "$" + std::to_string(bytes) + "\r\n" + std::string(bytes, 'x') + "\r\n";
  });
  const auto one = node(server);
  EXPECT_EQ(get(*one, {"fits", "fits"}).at(1).kind, RedisAnswer::Kind::kValue);
  EXPECT_EQ(one->failures(), 0u);
  EXPECT_EQ(get(*one, {"fits", "long"}).at(0).kind, RedisAnswer::Kind::kNone);
  EXPECT_EQ(one->failures(), 1u);
}

TEST_F(RedisNodeTest, an_array_is_no_value) {
  const FakeRedis server([](const Words&) { return "*1000000000\r\n"; });
  const auto one = node(server);
  EXPECT_EQ(get(*one, {"k"}).at(0).kind, RedisAnswer::Kind::kNone);
  EXPECT_FALSE(one->cluster_slots(RedisNode::Clock::now() + milliseconds(2000)).has_value());
  EXPECT_EQ(one->failures(), 2u);
}

}  // namespace
}  // namespace scd
