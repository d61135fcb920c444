// Keys and values of prompts seen before, page by page: a tree in which each node is one page and the way from the root
// spells its tokens. Requests that begin with the same tokens share the pages without a copy. What no running request
// uses stays until pages are needed, least recently used first, ends of prefixes before their beginnings.
//
// Pages differ in how they were made: one prefix may be here several times, as this server's own model computes it and
// rebuilt from codes. Who looks says what is good enough.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/token.h"
#include "common/kv/kv_cache.h"
#include "common/kv/page_pool.h"
#include "decode_server/page_origin.h"

namespace scd {

struct PrefixCacheCounters {
  int32_t pages = 0;  // in the tree, whether used by requests or not
  // Since the start, tokens: of prompts that were looked up, and of them, those found.
  uint64_t looked_up = 0;
  uint64_t found = 0;
  uint64_t evicted_pages = 0;
};

// Thread-safe. Tables of its pool may outlive what it keeps, not the pool.
class PrefixCache : public PageKeeper {
 public:
  static constexpr int64_t kBlock = kPageTokens;

  // max_pages: of the tree; 0: nothing is kept.
  PrefixCache(PagePool& pool, int32_t max_pages);
  ~PrefixCache() override;  // gives all pages back

  struct Found {
    int64_t tokens = 0;
    PageOrigin origin{};  // of the last page: the coarsest
  };
  struct Wanted {
    const std::string& salt;          // prefixes of other salts are not seen
    std::span<const TokenId> tokens;  // of which a prefix is looked for
    PageOrigin origin;                // at least so good
    uint64_t space = 0;               // so are those of other models
  };
  // Appends the pages of the longest prefix that is good enough to the empty table.
  Found find(const Wanted& wanted, PageTable& table);
  // A request with so many tokens to look up began with so many that were found.
  void count(int64_t looked_up, int64_t found);

  // Where an origin begins; up to the next one, or the end.
  struct Run {
    int64_t first_token = 0;
    PageOrigin origin;
  };
  struct Made {
    const std::string& salt;
    std::span<const TokenId> tokens;  // whose keys and values are complete; a tail that fills no page is left out
    std::span<const Run> runs;        // of pages that were not found here; the first begins at or before them
    uint64_t space = 0;
  };
  // Keeps the table's pages. Where the same is here already the table gets that page in place of its own: nobody may be
  // computing with it.
  void insert(const Made& made, PageTable& table);

  // Nothing of the space is kept any longer; pages that requests still hold are free when they give them up.
  void forget(uint64_t space);
  // Gives back what no request uses; returns how many pages.
  int32_t clear();
  int32_t give_back(int32_t pages) override;
  PrefixCacheCounters counters() const;

 private:
  using Block = std::array<TokenId, kBlock>;
  struct Node;
  using Children = std::map<Block, std::vector<std::unique_ptr<Node>>>;  // of one block, one for each origin
  struct Node {
    Node* parent = nullptr;
    Children::iterator place{};  // in the parent's children
    int32_t page = -1;
    PageOrigin origin;
    Children children;
    std::list<Node*>::iterator use{};  // in uses_
  };

  // All under mutex_.
  Node* add(Node& parent, const Block& block, const PageOrigin& origin, int32_t page);
  void touch(Node& last);
  void remove(Node& node, const Node* busy);
  // `busy`: a root that stays although nothing hangs on it.
  int32_t evict(int32_t pages, const Node* busy = nullptr);

  PagePool& pool_;
  const int32_t max_pages_;
  mutable std::mutex mutex_;                                // held while the pool is called, never the other way round
  std::map<std::pair<uint64_t, std::string>, Node> roots_;  // by space and salt
  std::list<Node*> uses_;                                   // most recently used first; a parent before its children
  PrefixCacheCounters counters_;
};

// The pages of one loaded model are a space of their own, and go with it: keys and values that another model, or
// another decoder, made are never taken for its own.
class PrefixSpace {
 public:
  explicit PrefixSpace(PrefixCache& cache);
  ~PrefixSpace() { cache_.forget(id_); }
  PrefixSpace(const PrefixSpace&) = delete;
  PrefixSpace& operator=(const PrefixSpace&) = delete;
  uint64_t id() const { return id_; }

 private:
  PrefixCache& cache_;
  const uint64_t id_;
};

}  // namespace scd
