#include "common/kv/page_pool.h"

#include <gtest/gtest.h>

#include <set>

#include "common/kv/kv_cache.h"
#include "tests/support/gpu.h"

namespace scd {
namespace {

TEST(PagePool, gives_each_page_to_one_table_and_takes_all_back) {
  PagePool pool(4, 16);
  {
    PageTable first = pool.make_table(), second = pool.make_table();
    ASSERT_TRUE(first.reserve(17).ok());
    ASSERT_TRUE(second.reserve(32).ok());
    std::set<int32_t> pages(first.page_ids().begin(), first.page_ids().end());
    pages.insert(second.page_ids().begin(), second.page_ids().end());
    EXPECT_EQ(pages.size(), 4u);
    EXPECT_EQ(pool.pages_in_use(), 4);
  }
  EXPECT_EQ(pool.pages_in_use(), 0);
}

TEST(PagePool, refuses_more_than_it_has_and_changes_nothing) {
  PagePool pool(2, 16);
  PageTable table = pool.make_table();
  ASSERT_TRUE(table.reserve(16).ok());
  const auto refused = table.reserve(48);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.failure().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(table.page_ids().size(), 1u);
}

TEST(PagePool, a_moved_table_keeps_its_pages) {
  PagePool pool(2, 16);
  PageTable table = pool.make_table();
  ASSERT_TRUE(table.reserve(20).ok());
  PageTable moved = std::move(table);
  table = pool.make_table();
  EXPECT_EQ(moved.page_ids().size(), 2u);
  EXPECT_EQ(pool.pages_in_use(), 2);
}

class Keeper final : public PageKeeper {
 public:
  explicit Keeper(PagePool& pool) : pool_(pool) { pool.set_keeper(this); }
  ~Keeper() override { pool_.set_keeper(nullptr); }
  int32_t give_back(int32_t pages) override {
    asked += pages;
    for (int32_t i = 0; i < pages && !kept.empty(); ++i) {
      pool_.let_go(kept.back());
      kept.pop_back();
    }
    return pages;
  }
  std::vector<int32_t> kept;
  int32_t asked = 0;

 private:
  PagePool& pool_;
};

TEST(PagePool, shared_pages_are_free_when_the_last_table_lets_go) {
  PagePool pool(4, 16);
  PageTable first = pool.make_table(), second = pool.make_table();
  ASSERT_TRUE(first.reserve(32).ok());
  for (const int32_t page : first.page_ids()) second.share(page);
  ASSERT_TRUE(second.reserve(48).ok());
  EXPECT_EQ(pool.pages_in_use(), 3);
  first.release();
  EXPECT_EQ(pool.pages_in_use(), 3);
  ASSERT_TRUE(first.reserve(16).ok());
  first.exchange(0, second.page_ids()[0]);
  EXPECT_EQ(pool.pages_in_use(), 3);
  second.release();
  EXPECT_EQ(pool.pages_in_use(), 1);
}

TEST(PagePool, kept_pages_stay_until_they_are_needed) {
  PagePool pool(4, 16);
  Keeper keeper(pool);
  PageTable table = pool.make_table();
  ASSERT_TRUE(table.reserve(48).ok());
  for (const int32_t page : table.page_ids()) {
    pool.keep(page);
    keeper.kept.push_back(page);
  }
  table.release();
  EXPECT_EQ(pool.pages_in_use(), 0);
  EXPECT_EQ(pool.pages_kept(), 3);
  EXPECT_EQ(pool.pages_to_spare(), 4);
  table.share(keeper.kept.front());
  EXPECT_EQ(pool.pages_kept(), 2);
  ASSERT_TRUE(table.reserve(48).ok());
  EXPECT_EQ(keeper.asked, 1);
  EXPECT_EQ(pool.pages_kept(), 1);
  EXPECT_FALSE(table.reserve(80).ok());
  EXPECT_EQ(keeper.asked, 1);  // not in vain
  table.release();
  keeper.give_back(4);
  EXPECT_EQ(pool.pages_kept(), 0);
}

TEST(KvCache, layers_do_not_overlap) {
  KvCache cache({.layers = 2, .kv_heads = 3, .head_dim = 8}, 5);
  const auto first = cache.layer(0), second = cache.layer(1);
  const auto bytes = 5 * 16 * 3 * 8 * 2;
  EXPECT_EQ(static_cast<char*>(first.values) - static_cast<char*>(first.keys), bytes);
  EXPECT_EQ(static_cast<char*>(second.keys) - static_cast<char*>(first.keys), 2 * bytes);
  EXPECT_EQ(cache.bytes(), 4u * bytes);
}

TEST(CachePages, AreThoseConfiguredOnTheCpuAndWithoutAFraction) {
  const KvShape shape{.layers = 2, .kv_heads = 3, .head_dim = 8};
  EXPECT_EQ(cache_pages(shape, kernels::Device::kCpu, 77, {.memory_fraction = 0.45}), 77);
  EXPECT_EQ(cache_pages(shape, kernels::Device::kGpu, 77, {}), 77);
}

TEST(GpuPages, FillTheShareThatWeightsAndWorkspacesLeave) {
  SCD_SKIP_WITHOUT_GPU();
  constexpr size_t kGiB = size_t{1} << 30;
  const KvShape shape{.layers = 32, .kv_heads = 8, .head_dim = 128};
  const auto total = static_cast<double>(kernels::gpu_memory().total_bytes);
  const GpuShare share{.memory_fraction = 0.3, .held_bytes = kGiB, .workspace_bytes = kGiB / 2, .step_key = "a.key"};
  const auto pages = static_cast<double>(gpu_pages(shape, share));
  EXPECT_NEAR(pages * 2 * 1024 * 1024, 0.3 * total - 2.0 * static_cast<double>(kGiB), 3e6);  // 0.5 GiB: the driver's
  try {
    gpu_pages(shape, {.memory_fraction = 0.3,
                      .held_bytes = kGiB,
                      .workspace_bytes = static_cast<size_t>(0.3 * total),
                      .step_key = "a.key"});
    FAIL() << "no room for pages";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    const std::string what = error.what();
    for (const char* part :
         {"1024 MiB of weights and maps", "MiB of workspaces", "kv_cache.gpu_memory_fraction", "lower a.key"}) {
      EXPECT_NE(what.find(part), std::string::npos) << what;
    }
  }
}

TEST(GpuPages, ThatFitNowhereAreRefusedWithTheKeyThatAskedForThem) {
  SCD_SKIP_WITHOUT_GPU();
  const KvShape shape{.layers = 32, .kv_heads = 8, .head_dim = 128};
  for (const double fraction : {0.0, 0.5}) {
    const std::string key(pages_key(kernels::Device::kGpu, fraction));
    try {
      const KvCache cache(shape, 1 << 20, kernels::Device::kGpu, key);
      FAIL() << "2 TiB";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
      const std::string what = error.what();
      EXPECT_TRUE(what.starts_with("KV cache: no memory for 1048576 pages, 2097152 MiB (GPU memory: ")) << what;
      EXPECT_TRUE(what.ends_with("MiB are free); lower " + key)) << what;
    }
  }
}

TEST(CachePages, AreNamedByTheKeyThatDecides) {
  EXPECT_EQ(pages_key(kernels::Device::kCpu, 0.45), "kv_cache.pages");
  EXPECT_EQ(pages_key(kernels::Device::kGpu, 0), "kv_cache.pages");
  EXPECT_EQ(pages_key(kernels::Device::kGpu, 0.45), "kv_cache.gpu_memory_fraction");
}

}  // namespace
}  // namespace scd
