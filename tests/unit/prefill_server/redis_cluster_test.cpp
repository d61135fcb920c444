#include "prefill_server/store/redis_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "tests/support/fake_redis.h"
#include "tests/support/redis_cluster_servers.h"

namespace scd {
namespace {

using std::chrono::milliseconds;
using testing::FakeRedis;
using testing::RedisClusterServers;
using ::testing::StartsWith;
using Words = std::vector<std::string>;

TEST(RedisSlot, is_what_the_specification_says) {
  EXPECT_EQ(redis_slot("123456789"), 0x31C3 % kRedisSlots);
  EXPECT_EQ(redis_slot("foo"), 12182);
  EXPECT_EQ(redis_slot("{user1000}.following"), redis_slot("user1000"));
  EXPECT_EQ(redis_slot("foo{{bar}}zap"), redis_slot("{bar"));
  EXPECT_NE(redis_slot("foo{}bar"), redis_slot("foo{}"));
}

TEST(RedisRedirect, is_read_where_it_is_sound) {
  const auto moved = parse_redirect("MOVED 3999 127.0.0.1:6381");
  ASSERT_TRUE(moved.has_value());
  EXPECT_FALSE(moved->ask);
  EXPECT_EQ(moved->slot, 3999);
  EXPECT_EQ(moved->host, "127.0.0.1");
  EXPECT_EQ(moved->port, 6381);
  EXPECT_TRUE(parse_redirect("ASK 1 ::1:7000")->ask);
  EXPECT_EQ(parse_redirect("ASK 1 ::1:7000")->host, "::1");
  EXPECT_EQ(parse_redirect("MOVED 1 :7000")->host, "");
  for (const char* text : {"", "ERR no", "MOVED", "MOVED 1", "MOVED 16384 h:1", "MOVED -1 h:1", "MOVED 1 h",
                           "MOVED 1 h:0", "MOVED 1 h:65536", "MOVED x h:1", "ASK 1 h:1x"}) {
    EXPECT_FALSE(parse_redirect(text).has_value()) << text;
  }
}

ByteBuffer bytes(const std::string& text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

class RedisClusterTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (testing::RedisServer::available()) servers_ = new RedisClusterServers;
  }
  static void TearDownTestSuite() {
    delete servers_;
    servers_ = nullptr;
  }
  void SetUp() override {
    if (servers_ == nullptr) GTEST_SKIP() << "no Redis: " << testing::kRedisBinary << " (redis-tools)";
  }
  // Knows of one server only.
  static std::unique_ptr<RedisCluster> cluster(size_t seed = 0) {
    return std::make_unique<RedisCluster>(
        std::vector{parse_redis_address("k", servers_->url(seed))},
        RedisNodeOptions{.address = {}, .password = {}, .timeout = milliseconds(2000)});
  }
  static std::vector<std::string> keys(const std::string& prefix, int count) {
    std::vector<std::string> keys;
    for (int i = 0; i < count; ++i) keys.push_back(prefix + std::to_string(i));
    return keys;
  }
  static bool set(RedisCluster& cluster, const std::string& key) {
    const ByteBuffer value = bytes("value of " + key);
    return cluster.set(key, value, std::chrono::seconds(60));
  }
  static void expect_all(RedisCluster& cluster, const std::vector<std::string>& keys) {
    const auto values = cluster.get(keys, RedisNode::Clock::now() + milliseconds(2000));
    ASSERT_EQ(values.size(), keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      ASSERT_TRUE(values[i].has_value()) << keys[i];
      EXPECT_EQ(*values[i], bytes("value of " + keys[i]));
    }
  }
  // The server whose slots hold the key.
  static size_t owner(const std::string& key) { return redis_slot(key) * RedisClusterServers::kServers / kRedisSlots; }

  static RedisClusterServers* servers_;
};
RedisClusterServers* RedisClusterTest::servers_ = nullptr;

TEST_F(RedisClusterTest, keys_are_written_to_and_read_from_the_server_of_their_slot) {
  const auto cluster = RedisClusterTest::cluster();
  const auto many = keys("spread:", 60);
  for (const std::string& key : many) ASSERT_TRUE(set(*cluster, key)) << key;
  expect_all(*cluster, many);
  for (size_t server = 0; server < RedisClusterServers::kServers; ++server) {
    EXPECT_NE(servers_->command(server, {"DBSIZE"}), "0") << "server " << server;
  }
  expect_all(*RedisClusterTest::cluster(2), many);  // another client, another seed
  EXPECT_EQ(cluster->failures(), 0u);
}

TEST_F(RedisClusterTest, what_is_not_there_is_nothing) {
  const auto cluster = RedisClusterTest::cluster();
  const auto values = cluster->get(keys("missing:", 20), RedisNode::Clock::now() + milliseconds(2000));
  for (const auto& value : values) EXPECT_FALSE(value.has_value());
}

TEST_F(RedisClusterTest, a_slot_that_has_moved_is_followed) {
  const auto cluster = RedisClusterTest::cluster();
  const std::string key = "moved:1";
  ASSERT_TRUE(set(*cluster, key));
  const size_t from = owner(key), to = (from + 1) % RedisClusterServers::kServers;
  const std::string slot = std::to_string(redis_slot(key)), id = servers_->id(to);
  servers_->command(from, {"DEL", key});
  for (const size_t server : {to, from, 3 - from - to}) {
    ASSERT_EQ(servers_->command(server, {"CLUSTER", "SETSLOT", slot, "NODE", id}), "OK");
  }
  ASSERT_TRUE(set(*cluster, key)) << "the old server says MOVED";
  expect_all(*cluster, {key});
  EXPECT_EQ(servers_->command(to, {"EXISTS", key}), "1");
  EXPECT_THAT(servers_->command(from, {"EXISTS", key}), StartsWith("MOVED"));
  for (const size_t server : {from, to, 3 - from - to}) {  // as it was
    servers_->command(to, {"DEL", key});
    servers_->command(server, {"CLUSTER", "SETSLOT", slot, "NODE", servers_->id(from)});
  }
}

TEST_F(RedisClusterTest, a_slot_that_is_moving_is_asked_for_at_both) {
  const auto cluster = RedisClusterTest::cluster();
  const std::string key = "moving:1";
  const size_t from = owner(key), to = (from + 1) % RedisClusterServers::kServers;
  const std::string slot = std::to_string(redis_slot(key));
  ASSERT_EQ(servers_->command(to, {"CLUSTER", "SETSLOT", slot, "IMPORTING", servers_->id(from)}), "OK");
  ASSERT_EQ(servers_->command(from, {"CLUSTER", "SETSLOT", slot, "MIGRATING", servers_->id(to)}), "OK");
  ASSERT_TRUE(set(*cluster, key)) << "the old server says ASK";
  expect_all(*cluster, {key});
  EXPECT_EQ(servers_->command(from, {"EXISTS", key}).substr(0, 3), "ASK");
  for (const size_t server : {from, to}) servers_->command(server, {"CLUSTER", "SETSLOT", slot, "STABLE"});
}

// Of servers that say what a test wants them to.
class FakeClusterTest : public ::testing::Test {
 protected:
  static std::string slots(int first, int last, int port) {
    return "*3\r\n:" + std::to_string(first) + "\r\n:" + std::to_string(last) +
           "\r\n*2\r\n$9\r\n127.0.0.1\r\n:" + std::to_string(port) + "\r\n";
  }
  static std::unique_ptr<RedisCluster> cluster(const std::vector<const FakeRedis*>& seeds) {
    std::vector<RedisAddress> addresses;
    for (const FakeRedis* seed : seeds) addresses.push_back(parse_redis_address("k", seed->url()));
    return std::make_unique<RedisCluster>(
        addresses, RedisNodeOptions{.address = {}, .password = {}, .timeout = milliseconds(2000)});
  }
  static bool found(RedisCluster& cluster, const std::string& key) {
    return cluster.get(std::vector{key}, RedisNode::Clock::now() + milliseconds(2000)).at(0).has_value();
  }
  static size_t asked_for_slots(const FakeRedis& server) {
    return static_cast<size_t>(std::ranges::count(server.commands(), Words{"CLUSTER", "SLOTS"}));
  }
  static constexpr const char* kValue = "$1\r\nv\r\n";
};

TEST_F(FakeClusterTest, a_server_that_knows_of_no_slots_is_not_believed) {
  const FakeRedis owner([](const Words& words) { return words[0] == "GET" ? kValue : "*0\r\n"; });
  const FakeRedis fresh([](const Words& words) { return words[0] == "GET" ? "-CLUSTERDOWN\r\n" : "*0\r\n"; });
  const FakeRedis knows([&](const Words& words) {
    return words[0] == "GET" ? "-ERR not mine\r\n" : "*1\r\n" + slots(0, 16383, owner.port());
  });
  const auto cluster = FakeClusterTest::cluster({&fresh, &knows});
  EXPECT_TRUE(found(*cluster, "k"));
  EXPECT_EQ(asked_for_slots(fresh), 1u) << "seeds are asked in their order";
  EXPECT_EQ(asked_for_slots(knows), 1u);
}

TEST_F(FakeClusterTest, an_answer_with_fewer_slots_than_are_known_changes_nothing) {
  std::atomic<bool> forgot = false;
  std::atomic<bool> fails = false;
  const FakeRedis owner([&](const Words& words) -> std::string {
    if (words[0] != "GET") return "*0\r\n";
    return fails ? "" : kValue;
  });
  const FakeRedis seed([&](const Words& words) {
    if (words[0] == "GET") return std::string("-ERR not mine\r\n");
    return "*1\r\n" + slots(0, forgot ? 100 : 16383, owner.port());
  });
  const auto cluster = FakeClusterTest::cluster({&seed});
  ASSERT_TRUE(found(*cluster, "foo"));  // its slot is 12182
  forgot = fails = true;
  EXPECT_FALSE(found(*cluster, "foo")) << "so that the slots are learnt anew";
  fails = false;
  std::this_thread::sleep_for(milliseconds(1100));  // not more than once a second
  EXPECT_TRUE(found(*cluster, "foo"));
  EXPECT_EQ(asked_for_slots(seed), 2u);
}

TEST_F(FakeClusterTest, where_nobody_knows_the_slots_servers_take_turns) {
  const FakeRedis first([](const Words&) { return "-ERR no\r\n"; });
  const FakeRedis second([](const Words& words) { return words[0] == "GET" ? kValue : "-ERR no\r\n"; });
  const auto cluster = FakeClusterTest::cluster({&first, &second});
  EXPECT_NE(found(*cluster, "k"), found(*cluster, "k"));
}

TEST_F(RedisClusterTest, without_any_server_nothing_is_found_in_bounded_time) {
  RedisCluster cluster({parse_redis_address("k", "redis://127.0.0.1:1")},
                       {.address = {}, .password = {}, .timeout = milliseconds(200)});
  const auto begin = RedisNode::Clock::now();
  EXPECT_FALSE(cluster.get(keys("a", 1), begin + milliseconds(200)).at(0).has_value());
  EXPECT_FALSE(set(cluster, "a"));
  EXPECT_LT(RedisNode::Clock::now() - begin, milliseconds(2000));
  EXPECT_GT(cluster.failures(), 0u);
}

}  // namespace
}  // namespace scd
