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
  EXPECT_EQ(cache_pages(shape, kernels::Device::kCpu, 77, 0.45, 0), 77);
  EXPECT_EQ(cache_pages(shape, kernels::Device::kCuda, 77, 0.0, 0), 77);
}

TEST(GpuPages, FillTheShareThatWeightsAndScratchLeave) {
  SCD_SKIP_WITHOUT_GPU();
  const KvShape shape{.layers = 32, .kv_heads = 8, .head_dim = 128};
  const auto total = static_cast<double>(kernels::cuda_memory().total_bytes);
  const auto pages = static_cast<double>(gpu_pages(shape, 0.3, size_t{1} << 30));
  EXPECT_NEAR(pages * 2 * 1024 * 1024, 0.3 * total - 2.0 * (1 << 30), 3e6);
  EXPECT_THROW(gpu_pages(shape, 0.3, static_cast<size_t>(0.3 * total)), Error);
  EXPECT_THROW(KvCache(shape, 1 << 20, kernels::Device::kCuda), Error);  // 2 TiB
}

}  // namespace
}  // namespace scd
