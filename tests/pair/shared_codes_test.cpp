// Codes that prefill servers share through Redis.
#include <gtest/gtest.h>

#include "tests/pair/pair.h"
#include "tests/support/redis_server.h"

namespace scd::testing {
namespace {

class SharedCodesTest : public PairTest {
 protected:
  void SetUp() override {
    if (!RedisServer::available()) GTEST_SKIP() << "no Redis: " << kRedisBinary << " (redis-tools)";
  }
  void start_prefill_with(const std::string& store) {
    start_prefill([&](PrefillConfig& config) {
      config.code_cache.redis.servers = {store};
      config.code_cache.redis.timeout = std::chrono::seconds(5);
    });
  }
  void ask(size_t server) {
    start_decode([&](DecodeConfig& config) { config.prefill.endpoints = {prefill_servers[server]->address()}; });
  }
  bool wrote_all(size_t server) const {
    return eventually([&] {
      const PrefillCounters counters = prefill_servers[server]->counters();
      return counters.code_store.written == counters.code_cache.chunks;
    });
  }
  CodeStoreCounters store_of(size_t server) const { return prefill_servers[server]->counters().code_store; }
};

TEST_F(SharedCodesTest, another_prefill_server_finds_what_one_computed) {
  const RedisServer store;
  start_prefill_with(store.url());
  start_prefill_with(store.url());
  ask(0);
  const auto request = greedy_request(300);
  const auto first = complete(request);
  EXPECT_EQ(first.finish().transfer().cached_tokens(), 0u);
  ASSERT_TRUE(wrote_all(0));
  ask(1);
  const auto second = complete(request);
  EXPECT_GE(second.finish().transfer().cached_tokens(), 256u);
  EXPECT_EQ(second.text(), first.text());
  EXPECT_GE(store_of(1).hits, 2u);
  auto salted = request;
  salted.set_cache_salt("mine");
  EXPECT_EQ(complete(salted).finish().transfer().cached_tokens(), 0u);
}

TEST_F(SharedCodesTest, a_prefix_of_many_requests_is_encoded_once) {
  const RedisServer store;
  start_prefill_with(store.url());
  start_prefill_with(store.url());
  uint64_t written = 0;
  for (const size_t server : {0, 1}) {
    ask(server);
    for (int i = 0; i < 10; ++i) {
      auto request = greedy_request(300);
      for (int at = 260; at < 300; ++at) request.mutable_token_ids()->set_ids(at, 5 + i);
      request.set_max_tokens(1);
      EXPECT_EQ(complete(request).finish().transfer().cached_tokens() > 0, server > 0 || i > 0) << server << " " << i;
    }
    if (server == 0) {
      ASSERT_TRUE(wrote_all(0));
      written = store_of(0).written;
    }
  }
  EXPECT_EQ(store_of(0).written, written);
  EXPECT_EQ(store_of(1).written, 0u);
}

TEST_F(SharedCodesTest, a_dead_store_costs_no_answer) {
  RedisServer store;
  start_prefill_with(store.url());
  store.stop();
  ask(0);
  const auto request = greedy_request(300);
  const auto coded = complete(request);
  EXPECT_EQ(coded.finish().transfer().fallback_reason(), "");
  EXPECT_EQ(coded.text(), complete_alone(request).text());
  EXPECT_GT(store_of(0).failures, 0u);
  expect_idle();
}

}  // namespace
}  // namespace scd::testing
