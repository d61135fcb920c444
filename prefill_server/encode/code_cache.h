// Codes of prompts seen before. A chunk is found by everything its bytes depend on: the tokens from the prompt's start
// to its end, salt, producer, encoder, ranks, level, form, first layer and skipped tokens. Least recently used chunks
// go first.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "common/base/sha256.h"
#include "prefill_server/handover.h"
#include "prefill_server/prefix_names.h"
#include "prefill_server/store/code_store.h"

namespace scd {

struct CodeCacheCounters {
  uint64_t bytes = 0;
  uint64_t chunks = 0;
  uint64_t hits = 0;    // chunks found
  uint64_t misses = 0;  // lookups that found less than was wanted
  uint64_t evictions = 0;
};

// Thread-safe.
class CodeCache {
 public:
  // Shared: a job sends what may be evicted meanwhile.
  using Chunk = std::shared_ptr<const StoredChunk>;

  // shared: where other servers' chunks are found and this one's are kept; null: nowhere. It must outlive the cache.
  CodeCache(uint64_t capacity_bytes, int64_t chunk_tokens, CodeStore* shared = nullptr);

  struct Found {
    std::vector<Chunk> chunks;  // in order, without those that lie before skip_tokens
    int64_t end = 0;            // codes of [skip_tokens, end) are here
  };
  // The longest chain of stored chunks from the prompt's start, ending at names.tokens() at most.
  Found find(const PrefixNames& names, int64_t skip_tokens);
  // What fetched chunks must be like to be of use.
  struct Wanted {
    const LayerPlan& layers;
    uint64_t most_payload_bytes = UINT64_MAX;
  };
  // The same, and what is missing is looked for in the shared store, for which this may wait.
  Found find_or_fetch(const PrefixNames& names, int64_t skip_tokens, const Wanted& wanted);
  // name: of the prefix that ends where the chunk does. Keeps what is there already.
  void insert(const Sha256Digest& name, Chunk chunk);

  CodeCacheCounters counters() const;

 private:
  struct NameHash {
    size_t operator()(const Sha256Digest& name) const;
  };
  struct Entry {
    Sha256Digest name;
    Chunk chunk;
  };
  using Entries = std::list<Entry>;  // most recently used first

  Found search(const PrefixNames& names, int64_t skip_tokens);
  Found counted(Found found, int64_t limit);
  void fetch(const PrefixNames& names, int64_t skip_tokens, const Wanted& wanted, Found& found);
  bool add(const Sha256Digest& name, const Chunk& chunk);
  Chunk take(const Sha256Digest& name);  // null when absent; makes it the most recently used

  const uint64_t capacity_;
  const int64_t chunk_tokens_;
  CodeStore* const shared_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::unordered_map<Sha256Digest, Entries::iterator, NameHash> index_;
  CodeCacheCounters counters_;
};

}  // namespace scd
