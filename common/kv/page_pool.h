// Who holds which page of the cache. One block table serves all layers. A page may be in several tables at once, and a
// cache of prefixes may keep pages that no table holds until somebody needs them.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "common/base/error.h"

namespace scd {

class PagePool;

// Pages of one sequence, in position order; returned to the pool on destruction. Move-only.
class PageTable {
 public:
  PageTable() = default;
  PageTable(PageTable&& other) noexcept;
  PageTable& operator=(PageTable&& other) noexcept;
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;
  ~PageTable();

  std::span<const int32_t> page_ids() const { return page_ids_; }
  // Grows the table until it covers `tokens` positions; RESOURCE_EXHAUSTED (and no change) when the pool has too few.
  Result<Done> reserve(int64_t tokens);
  // Appends a page that is kept or in another table: whoever shares a page only reads it.
  void share(int32_t page);
  // Takes a page with the same contents in place of its own.
  void exchange(size_t index, int32_t page);
  void release();

 private:
  friend class PagePool;
  explicit PageTable(PagePool* pool) : pool_(pool) {}
  PagePool* pool_ = nullptr;
  std::vector<int32_t> page_ids_;
};

// Whoever keeps pages that no table holds.
class PageKeeper {
 public:
  virtual ~PageKeeper() = default;
  // Gives up to `pages` of them back with PagePool::let_go(); returns how many. Called without the pool's lock.
  virtual int32_t give_back(int32_t pages) = 0;
};

// Thread-safe. Outlives its tables.
class PagePool {
 public:
  PagePool(int32_t pages, int32_t page_tokens);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;
  ~PagePool();  // broken invariant when pages are still held

  PageTable make_table() { return PageTable(this); }
  int32_t page_tokens() const { return page_tokens_; }
  int32_t pages() const { return pages_; }
  int32_t pages_for(int64_t tokens) const { return static_cast<int32_t>((tokens + page_tokens_ - 1) / page_tokens_); }
  int32_t pages_in_use() const;                                       // in tables
  int32_t pages_kept() const;                                         // in no table, kept by the keeper
  int32_t pages_to_spare() const { return pages_ - pages_in_use(); }  // free, or given back when asked for

  // Who is asked when pages run out; null: nobody. Before the first page is kept, and after the last one was let go.
  void set_keeper(PageKeeper* keeper) { keeper_ = keeper; }
  // The page stays what it is when the last table gives it up.
  void keep(int32_t page);
  // Free as soon as no table holds it.
  void let_go(int32_t page);
  bool kept(int32_t page) const;
  bool idle(int32_t page) const;  // in no table

 private:
  friend class PageTable;
  struct Page {
    int32_t tables = 0;
    bool kept = false;
  };
  void add_holder(int32_t page);   // under mutex_
  void drop_holder(int32_t page);  // under mutex_

  const int32_t pages_;
  const int32_t page_tokens_;
  PageKeeper* keeper_ = nullptr;
  mutable std::mutex mutex_;  // guards all below
  std::vector<Page> state_;
  std::vector<int32_t> free_;
  int32_t kept_idle_ = 0;
};

}  // namespace scd
