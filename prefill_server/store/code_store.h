// Codes that prefill servers share, behind each server's own code cache. What it holds saves a prefill; where it fails,
// is slow or lies, a prefill is computed as if it were not there.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/sha256.h"
#include "prefill_server/handover.h"

namespace scd {

struct CodeStoreCounters {
  uint64_t hits = 0;      // chunks found
  uint64_t misses = 0;    // chunks looked for and not found
  uint64_t written = 0;   // chunks
  uint64_t dropped = 0;   // chunks that were not written: too many waited, or the store failed
  uint64_t failures = 0;  // connections that could not be made, or broke, or took too long
  uint64_t unsound = 0;   // values that were not what was asked for
};

// Thread-safe.
class CodeStore {
 public:
  using Chunk = std::shared_ptr<const StoredChunk>;  // shared, as in the code cache

  virtual ~CodeStore() = default;
  // The first chunks of the names, as many as are there one after the other. Waits for the store's timeout at most.
  virtual std::vector<Chunk> fetch(std::span<const Sha256Digest> names) = 0;
  // Returns at once.
  virtual void keep(const Sha256Digest& name, Chunk chunk) = 0;
  virtual CodeStoreCounters counters() const = 0;
};

}  // namespace scd
