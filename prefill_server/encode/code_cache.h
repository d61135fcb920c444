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

  CodeCache(uint64_t capacity_bytes, int64_t chunk_tokens);

  struct Found {
    std::vector<Chunk> chunks;  // in order, without those that lie before skip_tokens
    int64_t end = 0;            // codes of [skip_tokens, end) are here
  };
  // The longest chain of stored chunks from the prompt's start, ending at names.tokens() at most.
  Found find(const PrefixNames& names, int64_t skip_tokens);
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

  Chunk take(const Sha256Digest& name);  // null when absent; makes it the most recently used

  const uint64_t capacity_;
  const int64_t chunk_tokens_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::unordered_map<Sha256Digest, Entries::iterator, NameHash> index_;
  CodeCacheCounters counters_;
};

}  // namespace scd
