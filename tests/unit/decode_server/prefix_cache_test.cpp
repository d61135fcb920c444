#include "decode_server/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace scd {
namespace {

constexpr int64_t kBlock = PrefixCache::kBlock;
const std::string kNoSalt;

PageOrigin lossy(int32_t level) {
  PageOrigin origin{.codec = CodecChoice{CodecId::kRd, {.level = level}}};
  origin.encoder_id.fill(9);
  return origin;
}

std::vector<TokenId> tokens_of(std::initializer_list<int> blocks) {
  std::vector<TokenId> tokens;
  for (const int block : blocks) tokens.insert(tokens.end(), kBlock, block);
  return tokens;
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  // A request that computes what it does not find and leaves it.
  std::vector<int32_t> serve(const std::vector<TokenId>& tokens, const PageOrigin& made = {},
                             const std::string& salt = kNoSalt) {
    PageTable table = pool_.make_table();
    const auto found = cache_.find({salt, tokens, made}, table);
    EXPECT_TRUE(table.reserve(std::ssize(tokens)).ok());
    const PrefixCache::Run run{found.tokens, origin_over(found.origin, made)};
    cache_.insert({salt, tokens, std::span(&run, 1)}, table);
    return {table.page_ids().begin(), table.page_ids().end()};
  }
  PrefixCache::Found look(const std::vector<TokenId>& tokens, const PageOrigin& wanted = {},
                          const std::string& salt = kNoSalt) {
    PageTable table = pool_.make_table();
    return cache_.find({salt, tokens, wanted}, table);
  }

  PagePool pool_{8, kPageTokens};
  PrefixCache cache_{pool_, 8};
};

TEST_F(PrefixCacheTest, finds_the_longest_prefix_of_whole_pages) {
  serve(tokens_of({1, 2, 3}));
  EXPECT_EQ(look(tokens_of({1, 2, 3})).tokens, 3 * kBlock);
  EXPECT_EQ(look(tokens_of({1, 2, 4})).tokens, 2 * kBlock);
  EXPECT_EQ(look(tokens_of({2, 3})).tokens, 0);
  auto cut = tokens_of({1, 2, 3});
  cut.pop_back();
  EXPECT_EQ(look(cut).tokens, 2 * kBlock);
}

TEST_F(PrefixCacheTest, requests_share_pages_and_the_first_ones_are_everybodys) {
  const auto first = serve(tokens_of({1, 2}));
  const auto second = serve(tokens_of({1, 2, 3}));
  EXPECT_TRUE(std::equal(first.begin(), first.end(), second.begin()));
  EXPECT_EQ(pool_.pages_in_use(), 0);
  EXPECT_EQ(pool_.pages_kept(), 3);
  // Two that did not know of each other end up with one copy.
  PageTable one = pool_.make_table(), other = pool_.make_table();
  ASSERT_TRUE(one.reserve(kBlock).ok() && other.reserve(kBlock).ok());
  const auto tokens = tokens_of({7});
  const PrefixCache::Run run{0, {}};
  cache_.insert({kNoSalt, tokens, std::span(&run, 1)}, one);
  cache_.insert({kNoSalt, tokens, std::span(&run, 1)}, other);
  EXPECT_EQ(one.page_ids()[0], other.page_ids()[0]);
  EXPECT_EQ(pool_.pages_in_use(), 1);
}

TEST_F(PrefixCacheTest, salts_keep_tenants_apart) {
  serve(tokens_of({1}), {}, "one");
  EXPECT_EQ(look(tokens_of({1}), {}, "other").tokens, 0);
  EXPECT_EQ(look(tokens_of({1})).tokens, 0);
  EXPECT_EQ(look(tokens_of({1}), {}, "one").tokens, kBlock);
}

TEST_F(PrefixCacheTest, nobody_gets_a_coarser_origin_than_wanted) {
  serve(tokens_of({1, 2}), lossy(1));
  EXPECT_EQ(look(tokens_of({1, 2})).tokens, 0);            // exact
  EXPECT_EQ(look(tokens_of({1, 2}), lossy(0)).tokens, 0);  // finer
  EXPECT_EQ(look(tokens_of({1, 2}), lossy(1)).tokens, 2 * kBlock);
  const auto coarser = look(tokens_of({1, 2}), lossy(2));
  EXPECT_EQ(coarser.tokens, 2 * kBlock);
  EXPECT_EQ(coarser.origin, lossy(1));
  PageOrigin another = lossy(1);
  another.encoder_id.fill(3);
  EXPECT_EQ(look(tokens_of({1, 2}), another).tokens, 0);
  another = lossy(1);
  another.codec->rank.key = 4;
  EXPECT_EQ(look(tokens_of({1, 2}), another).tokens, 0);
  // Both may be here, and the finer one of equally long ones is taken.
  serve(tokens_of({1}));
  serve(tokens_of({1, 2}));
  EXPECT_TRUE(look(tokens_of({1, 2}), lossy(1)).origin.exact());
  EXPECT_EQ(look(tokens_of({1, 2})).tokens, 2 * kBlock);
}

TEST_F(PrefixCacheTest, what_is_computed_over_a_lossy_prefix_is_lossy) {
  EXPECT_EQ(origin_over(lossy(1), {}), lossy(1));
  EXPECT_EQ(origin_over({}, lossy(1)), lossy(1));
  EXPECT_EQ(origin_over(lossy(2), lossy(1)), lossy(2));
  EXPECT_EQ(origin_over(lossy(1), lossy(2)), lossy(2));
  EXPECT_TRUE(origin_over({}, {}).exact());
}

TEST_F(PrefixCacheTest, gives_the_least_recently_used_ends_back_when_pages_run_out) {
  serve(tokens_of({1, 2, 3}));
  serve(tokens_of({4, 5}));
  look(tokens_of({1, 2}));  // the order is now 3, 5, 4, 2, 1
  PageTable table = pool_.make_table();
  ASSERT_TRUE(table.reserve(5 * kBlock).ok());
  EXPECT_EQ(look(tokens_of({1, 2, 3})).tokens, 2 * kBlock);
  EXPECT_EQ(look(tokens_of({4, 5})).tokens, kBlock);
  EXPECT_EQ(cache_.counters().evicted_pages, 2u);
  ASSERT_TRUE(table.reserve(8 * kBlock).ok());
  EXPECT_EQ(cache_.counters().pages, 0);
  EXPECT_FALSE(table.reserve(9 * kBlock).ok());
}

TEST_F(PrefixCacheTest, what_a_request_uses_is_never_given_back) {
  serve(tokens_of({1, 2}));
  PageTable user = pool_.make_table(), table = pool_.make_table();
  EXPECT_EQ(cache_.find({kNoSalt, tokens_of({1, 2}), {}}, user).tokens, 2 * kBlock);
  EXPECT_FALSE(table.reserve(7 * kBlock).ok());
  ASSERT_TRUE(table.reserve(6 * kBlock).ok());
  EXPECT_EQ(cache_.clear(), 0);
  user.release();
  EXPECT_EQ(cache_.clear(), 2);
  EXPECT_EQ(pool_.pages_in_use(), 6);
}

TEST(PrefixCacheShare, bounds_what_is_kept) {
  PagePool pool(8, kPageTokens);
  PrefixCache cache(pool, 3);
  for (int i = 0; i < 5; ++i) {
    PageTable table = pool.make_table();
    ASSERT_TRUE(table.reserve(2 * kBlock).ok());
    const PrefixCache::Run run{0, {}};
    cache.insert({kNoSalt, tokens_of({i, i}), std::span(&run, 1)}, table);
    EXPECT_LE(cache.counters().pages, 3);
  }
  EXPECT_LE(pool.pages_kept(), 3);
  EXPECT_GE(pool.pages_kept(), 2);
}

// A plain list of all prefixes ever left, in which what was given back is struck out.
class NaiveCache {
 public:
  struct Entry {
    std::string salt;
    std::vector<TokenId> tokens;
    PageOrigin origin;
    int32_t page;
  };
  std::vector<int32_t> find(const PrefixCache::Wanted& wanted) const {
    std::vector<int32_t> best;
    // Every way to go from page to page.
    const std::function<void(std::vector<int32_t>)> go = [&](std::vector<int32_t> pages) {
      if (pages.size() > best.size()) best = pages;
      const auto length = std::ssize(pages) * kBlock + kBlock;
      if (length > std::ssize(wanted.tokens)) return;
      for (const Entry& entry : entries) {
        if (entry.salt != wanted.salt || std::ssize(entry.tokens) != length ||
            !good_enough(entry.origin, wanted.origin))
          continue;
        if (!std::equal(entry.tokens.begin(), entry.tokens.end(), wanted.tokens.begin())) continue;
        const auto before = parents.find(entry.page);
        if (before->second != (pages.empty() ? -1 : pages.back())) continue;
        auto further = pages;
        further.push_back(entry.page);
        go(further);
      }
    };
    go({});
    return best;
  }
  std::vector<Entry> entries;
  std::map<int32_t, int32_t> parents;  // by page
};

TEST(PrefixCacheModel, finds_what_a_plain_list_finds_over_random_operations) {
  constexpr int32_t kPages = 24;
  std::mt19937 random(3);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  PagePool pool(kPages, kPageTokens);
  PrefixCache cache(pool, kPages);
  struct Running {
    PageTable table;
    std::string salt;
    std::vector<TokenId> tokens;
    PrefixCache::Run run;
  };
  std::vector<Running> running;
  NaiveCache naive;
  int found_pages = 0, evictions = 0;
  for (int step = 0; step < 4000; ++step) {
    if (below(2) == 0 && running.size() < 6) {
      Running next{pool.make_table(), below(3) == 0 ? "salt" : "", {}, {}};
      for (int block = 1 + below(5); block > 0; --block) next.tokens.insert(next.tokens.end(), kBlock, below(2));
      const PageOrigin wanted = below(2) == 0 ? PageOrigin{} : lossy(below(3));
      const auto expected = naive.find({next.salt, next.tokens, wanted});
      const auto found = cache.find({next.salt, next.tokens, wanted}, next.table);
      ASSERT_EQ(found.tokens, std::ssize(expected) * kBlock) << step;
      ASSERT_TRUE(good_enough(found.origin, wanted));
      found_pages += static_cast<int>(expected.size());
      const uint64_t evicted = cache.counters().evicted_pages;
      if (!next.table.reserve(std::ssize(next.tokens)).ok()) continue;
      evictions += cache.counters().evicted_pages > evicted ? 1 : 0;
      next.run = {found.tokens, origin_over(found.origin, wanted)};
      running.push_back(std::move(next));
    } else if (!running.empty()) {
      const auto at = running.begin() + below(static_cast<int>(running.size()));
      const bool leaves = below(4) > 0;
      if (leaves) cache.insert({at->salt, at->tokens, std::span(&at->run, 1)}, at->table);
      for (size_t i = 0; leaves && i < at->table.page_ids().size(); ++i) {
        const int32_t page = at->table.page_ids()[i];
        const bool known = std::ranges::any_of(naive.entries, [&](const auto& entry) { return entry.page == page; });
        if (known) continue;
        naive.entries.push_back({at->salt,
                                 {at->tokens.begin(), at->tokens.begin() + static_cast<int64_t>(i + 1) * kBlock},
                                 at->run.origin,
                                 page});
        naive.parents[page] = i == 0 ? -1 : at->table.page_ids()[i - 1];
      }
      running.erase(at);
    }
    // What the pool has free again was given back.
    std::erase_if(naive.entries, [&](const auto& entry) { return !pool.kept(entry.page); });
    ASSERT_EQ(std::ssize(naive.entries), cache.counters().pages) << step;
    std::set<int32_t> used;
    for (const Running& each : running) used.insert(each.table.page_ids().begin(), each.table.page_ids().end());
    ASSERT_EQ(pool.pages_in_use(), std::ssize(used));
    const auto idle =
        std::ranges::count_if(naive.entries, [&](const auto& entry) { return !used.contains(entry.page); });
    ASSERT_EQ(pool.pages_kept(), idle);
  }
  EXPECT_GT(found_pages, 1000);
  EXPECT_GT(evictions, 100);
  running.clear();
  EXPECT_EQ(cache.clear(), std::ssize(naive.entries));
  EXPECT_EQ(pool.pages_in_use(), 0);
  EXPECT_EQ(pool.pages_kept(), 0);
}

}  // namespace
}  // namespace scd
