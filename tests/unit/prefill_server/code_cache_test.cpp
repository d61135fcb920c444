#include "prefill_server/encode/code_cache.h"

#include <gtest/gtest.h>

#include <numeric>

namespace scd {
namespace {

constexpr int64_t kChunk = 32;

std::vector<TokenId> prompt(int64_t tokens, TokenId first = 0) {
  std::vector<TokenId> ids(static_cast<size_t>(tokens));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

CodeCache::Chunk chunk(TokenRange tokens, size_t bytes = 100) {
  StoredChunk stored{tokens, {}};
  stored.units.push_back({0, 1, tokens, 0, 0, SharedBytes::from(ByteBuffer(bytes))});
  return std::make_shared<const StoredChunk>(std::move(stored));
}

// Stores what a hand-over of `tokens` leaves behind.
void store(CodeCache& cache, const PrefixNames& names, int64_t tokens, int64_t skip = 0) {
  for (const TokenRange& range : chunks_until(tokens, skip, kChunk)) cache.insert(names.of(range.end()), chunk(range));
}

TEST(CodeCache, FindsTheLongestStoredChainOfAPrompt) {
  CodeCache cache(1 << 20, kChunk);
  const PrefixNames long_names({}, prompt(160));
  EXPECT_EQ(cache.find(long_names, 0).end, 0);
  store(cache, PrefixNames({}, prompt(80)), 80);  // chunks of 32, 32 and a tail of 16
  const auto found = cache.find(long_names, 0);
  EXPECT_EQ(found.end, 80);
  ASSERT_EQ(found.chunks.size(), 3U);
  EXPECT_EQ(found.chunks[2]->tokens, (TokenRange{64, 16}));
  EXPECT_EQ(cache.find(PrefixNames({}, prompt(64)), 0).end, 64);
  EXPECT_EQ(cache.find(PrefixNames({}, prompt(48)), 0).end, 32) << "a chunk cannot be cut";
}

TEST(CodeCache, AWholeChunkIsPreferredToATailInsideIt) {
  CodeCache cache(1 << 20, kChunk);
  const PrefixNames names({}, prompt(96));
  store(cache, names, 48);
  store(cache, names, 96);
  EXPECT_EQ(cache.find(names, 0).chunks.size(), 3U);
  EXPECT_EQ(cache.find(names, 0).end, 96);
}

TEST(CodeCache, ADifferentTokenAnywhereBeforeEndsTheChain) {
  CodeCache cache(1 << 20, kChunk);
  store(cache, PrefixNames({}, prompt(96)), 96);
  std::vector<TokenId> other = prompt(96);
  other[40] = 7777;
  EXPECT_EQ(cache.find(PrefixNames({}, other), 0).end, 32);
  other[0] = 7777;
  EXPECT_EQ(cache.find(PrefixNames({}, other), 0).end, 0);
}

TEST(CodeCache, NothingIsSharedAcrossAnythingTheBytesDependOn) {
  CodeCache cache(1 << 20, kChunk);
  CodeScope scope{.cache_salt = "a", .producer = "p", .encoder_id = {}, .codec = {}};
  store(cache, PrefixNames(scope, prompt(32)), 32);
  const auto end_of = [&](const CodeScope& other) { return cache.find(PrefixNames(other, prompt(32)), 0).end; };
  EXPECT_EQ(end_of(scope), 32);
  std::vector<CodeScope> others(9, scope);
  others[0].cache_salt = "b";
  others[1].producer = "q";
  others[2].encoder_id[0] = 1;
  others[3].codec.id = CodecId::kScd;
  others[4].codec.rank.value = 8;
  others[5].first_layer = 1;
  others[6].skip_tokens = 4;
  others[7].cache_salt = "ap";
  others[7].producer = "";
  others[8].codec.rank.level = 1;
  for (const CodeScope& other : others) EXPECT_EQ(end_of(other), 0);
  CodeScope other_form = scope;
  other_form.codec.rank.packed = true;
  EXPECT_EQ(end_of(other_form), 32) << "a decoder reads both forms";
}

TEST(CodeCache, SkippedTokensNeedNoChunk) {
  CodeCache cache(1 << 20, kChunk);
  const PrefixNames names({}, prompt(96));
  store(cache, names, 96, 40);  // the first chunk does not exist, the second begins at 40
  const auto found = cache.find(names, 40);
  EXPECT_EQ(found.end, 96);
  ASSERT_EQ(found.chunks.size(), 2U);
  EXPECT_EQ(found.chunks[0]->tokens, (TokenRange{40, 24}));
  EXPECT_EQ(CodeCache(1 << 20, kChunk).find(names, 40).end, 0);
}

TEST(CodeCache, MemoryIsBoundedAndTheLeastRecentlyUsedGoesFirst) {
  CodeCache cache(3 * (100 + 256 + 128), kChunk);
  const PrefixNames a({}, prompt(32)), b({}, prompt(32, 1000)), c({}, prompt(32, 2000)), d({}, prompt(32, 3000));
  for (const PrefixNames* names : {&a, &b, &c}) store(cache, *names, 32);
  EXPECT_EQ(cache.find(a, 0).end, 32);  // b is now the oldest
  store(cache, d, 32);
  EXPECT_EQ(cache.find(b, 0).end, 0);
  EXPECT_EQ(cache.find(a, 0).end, 32);
  EXPECT_EQ(cache.counters().chunks, 3U);
  EXPECT_EQ(cache.counters().evictions, 1U);
  EXPECT_LE(cache.counters().bytes, 3U * (100 + 256 + 128));
}

TEST(CodeCache, TheEndOfAChainIsEvictedBeforeItsBeginning) {
  CodeCache cache(4 * (100 + 256 + 128), kChunk);
  const PrefixNames names({}, prompt(96));
  store(cache, names, 96);
  EXPECT_EQ(cache.find(names, 0).end, 96);
  store(cache, PrefixNames({}, prompt(64, 5000)), 64);
  EXPECT_EQ(cache.find(names, 0).end, 64);
}

TEST(CodeCache, WithoutMemoryNothingIsKept) {
  CodeCache cache(0, kChunk);
  const PrefixNames names({}, prompt(32));
  store(cache, names, 32);
  EXPECT_EQ(cache.find(names, 0).end, 0);
  EXPECT_EQ(cache.counters().bytes, 0U);
}

}  // namespace
}  // namespace scd
