#include "common/kv/page_pool.h"

#include <string>
#include <utility>

namespace scd {

PageTable::PageTable(PageTable&& other) noexcept : pool_(other.pool_), page_ids_(std::exchange(other.page_ids_, {})) {}

PageTable& PageTable::operator=(PageTable&& other) noexcept {
  if (this != &other) {
    release();
    pool_ = other.pool_;
    page_ids_ = std::exchange(other.page_ids_, {});
  }
  return *this;
}

PageTable::~PageTable() { release(); }

void PageTable::release() {
  if (pool_ == nullptr || page_ids_.empty()) return;
  std::scoped_lock lock(pool_->mutex_);
  pool_->free_.insert(pool_->free_.end(), page_ids_.rbegin(), page_ids_.rend());
  page_ids_.clear();
}

Result<Done> PageTable::reserve(int64_t tokens) {
  SCD_CHECK(pool_ != nullptr, "a PageTable comes from PagePool::make_table()");
  const int64_t wanted = (tokens + pool_->page_tokens_ - 1) / pool_->page_tokens_;
  std::scoped_lock lock(pool_->mutex_);
  const int64_t missing = wanted - static_cast<int64_t>(page_ids_.size());
  if (missing > static_cast<int64_t>(pool_->free_.size())) {
    return Failure{ErrorCode::kResourceExhausted, "KV cache: " + std::to_string(missing) + " more pages wanted, " +
                                                      std::to_string(pool_->free_.size()) + " of " +
                                                      std::to_string(pool_->pages_) + " free"};
  }
  for (int64_t i = 0; i < missing; ++i) {
    page_ids_.push_back(pool_->free_.back());
    pool_->free_.pop_back();
  }
  return Done{};
}

PagePool::PagePool(int32_t pages, int32_t page_tokens) : pages_(pages), page_tokens_(page_tokens) {
  SCD_CHECK(pages > 0 && page_tokens > 0, "a page pool has pages");
  free_.reserve(static_cast<size_t>(pages));
  for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);
}

PagePool::~PagePool() { SCD_CHECK(pages_in_use() == 0, "a page table outlived its pool"); }

int32_t PagePool::pages_in_use() const {
  std::scoped_lock lock(mutex_);
  return pages_ - static_cast<int32_t>(free_.size());
}

}  // namespace scd
