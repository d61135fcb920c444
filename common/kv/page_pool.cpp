#include "common/kv/page_pool.h"

#include <string>
#include <utility>

#include "common/base/check.h"

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
  for (size_t i = page_ids_.size(); i-- > 0;) pool_->drop_holder(page_ids_[i]);
  page_ids_.clear();
}

Result<Done> PageTable::reserve(int64_t tokens) {
  SCD_CHECK(pool_ != nullptr, "a PageTable comes from PagePool::make_table()");
  const int32_t wanted = pool_->pages_for(tokens);
  while (true) {
    int32_t lacking = 0;
    {
      std::scoped_lock lock(pool_->mutex_);
      const int32_t missing = wanted - static_cast<int32_t>(page_ids_.size());
      const auto free = static_cast<int32_t>(pool_->free_.size());
      if (missing > free + pool_->kept_idle_) {
        return Failure{ErrorCode::kResourceExhausted, "KV cache: " + std::to_string(missing) + " more pages wanted, " +
                                                          std::to_string(free + pool_->kept_idle_) + " of " +
                                                          std::to_string(pool_->pages_) + " free"};
      }
      lacking = missing - free;
      for (int32_t i = 0; lacking <= 0 && i < missing; ++i) {
        page_ids_.push_back(pool_->free_.back());
        pool_->free_.pop_back();
        pool_->state_[static_cast<size_t>(page_ids_.back())].tables = 1;
      }
    }
    if (lacking <= 0) return Done{};
    // Another thread may take what is given back, or take up what was to be: look again.
    pool_->keeper_->give_back(lacking);
  }
}

void PageTable::share(int32_t page) {
  SCD_CHECK(pool_ != nullptr, "a PageTable comes from PagePool::make_table()");
  std::scoped_lock lock(pool_->mutex_);
  pool_->add_holder(page);
  page_ids_.push_back(page);
}

void PageTable::exchange(size_t index, int32_t page) {
  std::scoped_lock lock(pool_->mutex_);
  pool_->add_holder(page);
  pool_->drop_holder(std::exchange(page_ids_.at(index), page));
}

PagePool::PagePool(int32_t pages, int32_t page_tokens)
    : pages_(pages), page_tokens_(page_tokens), state_(static_cast<size_t>(pages)) {
  SCD_CHECK(pages > 0 && page_tokens > 0, "a page pool has pages");
  free_.reserve(static_cast<size_t>(pages));
  for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);
}

PagePool::~PagePool() {
  SCD_CHECK(pages_in_use() == 0, "a page table outlived its pool");
  SCD_CHECK(pages_kept() == 0, "a page's keeper outlived the pool");
}

int32_t PagePool::pages_in_use() const {
  std::scoped_lock lock(mutex_);
  return pages_ - static_cast<int32_t>(free_.size()) - kept_idle_;
}

int32_t PagePool::pages_kept() const {
  std::scoped_lock lock(mutex_);
  return kept_idle_;
}

void PagePool::keep(int32_t page) {
  std::scoped_lock lock(mutex_);
  Page& state = state_.at(static_cast<size_t>(page));
  SCD_CHECK(state.tables > 0 && !state.kept, "a page that a table holds is kept once");
  state.kept = true;
}

void PagePool::let_go(int32_t page) {
  std::scoped_lock lock(mutex_);
  Page& state = state_.at(static_cast<size_t>(page));
  SCD_CHECK(state.kept, "a page that is kept");
  state.kept = false;
  if (state.tables > 0) return;
  --kept_idle_;
  free_.push_back(page);
}

bool PagePool::kept(int32_t page) const {
  std::scoped_lock lock(mutex_);
  return state_.at(static_cast<size_t>(page)).kept;
}

bool PagePool::idle(int32_t page) const {
  std::scoped_lock lock(mutex_);
  return state_.at(static_cast<size_t>(page)).tables == 0;
}

void PagePool::add_holder(int32_t page) {
  Page& state = state_.at(static_cast<size_t>(page));
  SCD_CHECK(state.tables > 0 || state.kept, "a page that somebody holds");
  if (state.tables++ == 0) --kept_idle_;
}

void PagePool::drop_holder(int32_t page) {
  Page& state = state_.at(static_cast<size_t>(page));
  if (--state.tables > 0) return;
  if (state.kept) {
    ++kept_idle_;
  } else {
    free_.push_back(page);
  }
}

}  // namespace scd
