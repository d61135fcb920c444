// Who holds which page of the cache. One block table serves all layers.
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
  void release();

 private:
  friend class PagePool;
  explicit PageTable(PagePool* pool) : pool_(pool) {}
  PagePool* pool_ = nullptr;
  std::vector<int32_t> page_ids_;
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
  int32_t pages_in_use() const;

 private:
  friend class PageTable;
  const int32_t pages_;
  const int32_t page_tokens_;
  mutable std::mutex mutex_;
  std::vector<int32_t> free_;
};

}  // namespace scd
