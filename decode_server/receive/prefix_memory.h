// Which prefill servers have seen which beginnings of prompts, as far as this server has asked them: their code caches
// most likely still hold the codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/token.h"

namespace scd {

inline constexpr int64_t kPrefixBlockTokens = 64;

// One number for each whole block of 64 tokens, of the prompt up to its end; prompts of another salt have others.
std::vector<uint64_t> prefix_blocks(std::span<const TokenId> tokens, std::string_view cache_salt);

// Bounded: the block that was looked for or added longest ago gives way. Not thread-safe.
class PrefixMemory {
 public:
  // Of a prefill server's code cache; a new one after it may have lost it.
  using Holder = uint64_t;

  explicit PrefixMemory(size_t blocks) : capacity_(blocks) {}

  void add(Holder holder, std::span<const uint64_t> blocks);
  // How many of the first blocks each holder has; those that have none are missing.
  std::map<Holder, size_t> find(std::span<const uint64_t> blocks);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::vector<Holder> holders;  // the latest last
    std::list<uint64_t>::iterator age;
  };
  void touch(Entry& entry) { ages_.splice(ages_.end(), ages_, entry.age); }

  const size_t capacity_;
  std::unordered_map<uint64_t, Entry> entries_;
  std::list<uint64_t> ages_;  // blocks, the oldest first
};

}  // namespace scd
