// Codes shared through Redis: what comes back is what was kept, and nothing a store does costs more than time.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>

#include "common/base/crc32c.h"
#include "prefill_server/encode/code_cache.h"
#include "prefill_server/store/redis_store.h"
#include "prefill_server/store/stored_chunk_format.h"
#include "tests/support/redis_cluster_servers.h"
#include "tests/support/redis_server.h"

namespace scd {
namespace {

using std::chrono::milliseconds;
using testing::RedisServer;

constexpr int64_t kChunk = 32;

LayerPlan plan() { return {0, {{0, 2}, {2, 1}}, false}; }

PrefixNames names_of(int64_t tokens, const std::string& salt = "") {
  std::vector<TokenId> ids(static_cast<size_t>(tokens));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(i * 7);
  return {{.cache_salt = salt, .producer = "p"}, ids};
}

std::shared_ptr<const StoredChunk> chunk_of(int64_t first, int64_t count, uint8_t fill) {
  auto chunk = std::make_shared<StoredChunk>(StoredChunk{{first, count}, {}});
  for (const CodedUnit& unit : plan().units) {
    ByteBuffer bytes(static_cast<size_t>(100 + fill), static_cast<std::byte>(fill));
    const uint32_t crc = crc32c(bytes);
    chunk->units.push_back(
        {unit.first_layer, unit.layers, {first, count}, 2, crc, SharedBytes::from(std::move(bytes))});
  }
  return chunk;
}

void expect_equal(const StoredChunk& found, const StoredChunk& expected) {
  EXPECT_EQ(found.tokens, expected.tokens);
  ASSERT_EQ(found.units.size(), expected.units.size());
  for (size_t i = 0; i < found.units.size(); ++i) {
    EXPECT_EQ(found.units[i].layer, expected.units[i].layer);
    EXPECT_EQ(found.units[i].layers, expected.units[i].layers);
    EXPECT_EQ(found.units[i].level, expected.units[i].level);
    EXPECT_TRUE(std::ranges::equal(found.units[i].payload.bytes, expected.units[i].payload.bytes));
  }
}

TEST(StoredChunkFormat, ComesBackAndEveryChangedBitIsNoticed) {
  const Sha256Digest name = names_of(16).of(16);
  const auto chunk = chunk_of(16, 16, 5);
  const ByteBuffer bytes = stored_chunk_bytes(name, *chunk);
  auto back = read_stored_chunk(name, bytes);
  ASSERT_TRUE(back.ok());
  expect_equal(*back.value(), *chunk);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    ByteBuffer changed = bytes;
    changed[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    ASSERT_FALSE(read_stored_chunk(name, changed).ok()) << bit;
  }
  for (size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_FALSE(read_stored_chunk(name, std::span(bytes).first(length)).ok()) << length;
  }
  EXPECT_FALSE(read_stored_chunk(names_of(32).of(32), bytes).ok());
}

// A valid checksum over numbers that do not fit.
TEST(StoredChunkFormat, RefusesNumbersOutOfRange) {
  const Sha256Digest name = names_of(16).of(16);
  const ByteBuffer bytes = stored_chunk_bytes(name, *chunk_of(16, 16, 5));
  const auto changed = [&](size_t at, int64_t value, size_t size) {
    ByteBuffer copy = bytes;
    std::memcpy(copy.data() + at, &value, size);
    const uint32_t crc = crc32c(std::span(copy).first(copy.size() - 4));
    std::memcpy(copy.data() + copy.size() - 4, &crc, 4);
    return read_stored_chunk(name, copy).ok();
  };
  EXPECT_TRUE(changed(40, 16, 8));
  for (const int64_t first : {-16L, 17L, INT64_MAX, int64_t{INT32_MAX} - 15}) EXPECT_FALSE(changed(40, first, 8));
  for (const int64_t tokens : {0L, -16L, 8L, 1L << 20}) EXPECT_FALSE(changed(48, tokens, 8));
  for (const int64_t units : {3L, 4097L, 65535L}) EXPECT_FALSE(changed(6, units, 2));
  EXPECT_FALSE(changed(56 + 16, INT32_MAX, 4));  // bytes of the first payload
}

TEST(RedisAddress, SaysWhatWouldBeRight) {
  EXPECT_EQ(parse_redis_address("k", "redis://cache.local:6380/3").database, 3);
  EXPECT_EQ(parse_redis_address("k", "redis://[::1]:6380").host, "::1");
  EXPECT_EQ(parse_redis_address("k", "unix:/run/redis.sock").socket, "/run/redis.sock");
  for (const char* text : {"", "cache:6379", "redis://", "redis://host", "redis://host:x", "redis://:6379",
                           "unix:", "redis://host:6379/x", "redis://user:secret@host:6379", "redis://host:70000"}) {
    try {
      (void)parse_redis_address("code_cache.redis.servers", text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("code_cache.redis.servers"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("redis://host:port"), std::string::npos) << error.what();
    }
  }
}

class RedisStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!RedisServer::available()) GTEST_SKIP() << "no Redis: " << testing::kRedisBinary << " (redis-tools)";
  }
  static RedisOptions options(const std::vector<std::string>& servers) {
    return {.servers = servers,
            .cluster = false,
            .password_file = {},
            .timeout = milliseconds(5000),  // for a busy machine
            .retry_after = milliseconds(200)};
  }
};

TEST_F(RedisStoreTest, AnotherServersCodesAreFoundAndOthersTenantsAreNot) {
  const RedisServer first, second;
  RedisStore writes(options({first.url(), second.url()})), reads(options({first.url(), second.url()}));
  CodeCache here(1 << 20, kChunk, &writes), there(1 << 20, kChunk, &reads);
  const PrefixNames names = names_of(112);
  for (int64_t at = 0; at < 112; at += kChunk) {
    const int64_t end = std::min<int64_t>(at + kChunk, 112);
    here.insert(names.of(end), chunk_of(at, end - at, static_cast<uint8_t>(end)));
  }
  writes.flush();
  EXPECT_EQ(writes.counters().written, 4u);
  const CodeCache::Found found = there.find_or_fetch(names, 0, {plan()});
  EXPECT_EQ(found.end, 112);
  ASSERT_EQ(found.chunks.size(), 4u);
  expect_equal(*found.chunks[3], *chunk_of(96, 16, 112));
  EXPECT_EQ(there.find(names, 0).end, 112);  // without asking again
  EXPECT_EQ(reads.counters().hits, 4u);
  EXPECT_EQ(there.find_or_fetch(names_of(112, "tenant"), 0, {plan()}).end, 0);
}

TEST_F(RedisStoreTest, ACodeIsFoundWhereverInAClusterItIs) {
  const testing::RedisClusterServers servers;
  RedisOptions all = options({servers.url(0), servers.url(1)}), one = options({servers.url(2)});
  all.cluster = one.cluster = true;
  RedisStore writes(all), reads(one);
  const PrefixNames names = names_of(320);
  std::vector<Sha256Digest> wanted;
  for (int64_t at = 0; at < 320; at += kChunk) {
    wanted.push_back(names.of(at + kChunk));
    writes.keep(wanted.back(), chunk_of(at, kChunk, 1));
  }
  writes.flush();
  EXPECT_EQ(writes.counters().written, 10u);
  EXPECT_EQ(reads.fetch(wanted).size(), 10u);
  EXPECT_EQ(reads.counters().failures, 0u);
}

TEST_F(RedisStoreTest, ChunksOfAnotherPlanAreNotUsed) {
  const RedisServer server;
  RedisStore store(options({server.url()}));
  const PrefixNames names = names_of(32);
  store.keep(names.of(32), chunk_of(0, 32, 1));
  store.flush();
  CodeCache cache(1 << 20, kChunk, &store);
  EXPECT_EQ(cache.find_or_fetch(names, 0, {LayerPlan{0, {{0, 3}}, false}}).end, 0);
  EXPECT_EQ(cache.find_or_fetch(names, 0, {plan()}).end, 32);
}

TEST_F(RedisStoreTest, WhatWasFetchedServesWithoutACacheAndBesideAnotherPromptsTail) {
  const RedisServer server;
  RedisStore store(options({server.url()}));
  const PrefixNames names = names_of(96);
  for (int64_t at = 0; at < 96; at += kChunk) store.keep(names.of(at + kChunk), chunk_of(at, kChunk, 1));
  store.flush();
  CodeCache none(0, kChunk, &store);
  EXPECT_EQ(none.find_or_fetch(names, 0, {plan()}).end, 96);
  EXPECT_EQ(none.find_or_fetch(names, 0, {plan(), 50}).end, 0);  // larger than the consumer's slots
  CodeCache with_tail(1 << 20, kChunk, &store);
  with_tail.insert(names.of(32), chunk_of(0, 32, 1));
  with_tail.insert(names.of(48), chunk_of(32, 16, 1));  // where another hand-over ended
  const CodeCache::Found found = with_tail.find_or_fetch(names, 0, {plan()});
  EXPECT_EQ(found.end, 96);
  ASSERT_EQ(found.chunks.size(), 3u);
  EXPECT_EQ(found.chunks[1]->tokens, (TokenRange{32, 32}));
}

TEST_F(RedisStoreTest, AServerThatIsFullStillReads) {
  const RedisServer server;
  RedisStore store(options({server.url()}));
  const PrefixNames names = names_of(64);
  store.keep(names.of(32), chunk_of(0, 32, 1));
  store.flush();
  RedisNode node({.address = parse_redis_address("k", server.url()), .password = {}});
  ASSERT_EQ(node.set("", {}, std::chrono::seconds(0), false).kind, RedisAnswer::Kind::kError);  // which is an answer
  EXPECT_EQ(node.failures(), 0u);
  EXPECT_EQ(store.fetch(std::vector{names.of(32)}).size(), 1u);
}

TEST_F(RedisStoreTest, ADeadServerCostsLittleAndIsLeftAloneAndComesBack) {
  RedisServer server;
  RedisOptions patient = options({server.url()});
  patient.retry_after = milliseconds(1000);
  RedisStore store(patient);
  const PrefixNames names = names_of(32);
  store.keep(names.of(32), chunk_of(0, 32, 1));
  store.flush();
  const std::vector<Sha256Digest> wanted{names.of(32)};
  ASSERT_EQ(store.fetch(wanted).size(), 1u);
  server.stop();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(store.fetch(wanted).empty());
  EXPECT_EQ(store.counters().failures, 3u);  // then it was left alone
  server.start();
  std::this_thread::sleep_for(patient.retry_after + milliseconds(50));
  store.keep(names.of(32), chunk_of(0, 32, 1));
  store.flush();
  EXPECT_EQ(store.fetch(wanted).size(), 1u);
}

TEST_F(RedisStoreTest, AServerThatHangsCostsItsTimeout) {
  RedisServer server;
  RedisOptions hurried = options({server.url()});
  hurried.timeout = milliseconds(300);
  RedisStore writes(options({server.url()})), reads(hurried);
  const PrefixNames names = names_of(32);
  writes.keep(names.of(32), chunk_of(0, 32, 1));
  writes.flush();
  EXPECT_EQ(writes.counters().written, 1u);
  server.freeze();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(reads.fetch(std::vector{names.of(32)}).empty());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(4000));
  EXPECT_EQ(reads.counters().failures, 1u);
}

TEST_F(RedisStoreTest, APasswordIsAsked) {
  const RedisServer server("secret");
  RedisOptions with = options({server.url()});
  with.password_file = std::filesystem::temp_directory_path() / ("scd-password-" + std::to_string(::getpid()));
  std::ofstream(with.password_file) << "secret\n";
  const PrefixNames names = names_of(32);
  RedisStore knows(with), does_not(options({server.url()}));
  for (RedisStore* store : {&does_not, &knows}) {
    store->keep(names.of(32), chunk_of(0, 32, 1));
    store->flush();
  }
  EXPECT_EQ(does_not.counters().dropped, 1u);
  EXPECT_EQ(knows.counters().written, 1u);
  EXPECT_EQ(knows.fetch(std::vector{names.of(32)}).size(), 1u);
  std::filesystem::remove(with.password_file);
  EXPECT_THROW(RedisStore{with}, Error);
}

}  // namespace
}  // namespace scd
