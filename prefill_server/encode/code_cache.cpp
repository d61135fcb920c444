#include "prefill_server/encode/code_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace scd {
namespace {

// What an entry costs besides its payloads: nodes, names, one small allocation a layer.
constexpr uint64_t kEntryBytes = 256;
constexpr uint64_t kUnitBytes = 128;

uint64_t cost_of(const StoredChunk& chunk) { return chunk.bytes() + kEntryBytes + kUnitBytes * chunk.units.size(); }

}  // namespace

CodeCache::CodeCache(uint64_t capacity_bytes, int64_t chunk_tokens, CodeStore* shared)
    : capacity_(capacity_bytes), chunk_tokens_(chunk_tokens), shared_(shared) {
  SCD_CHECK(chunk_tokens > 0 && chunk_tokens % kHandoverMultiple == 0, "chunks are multiples of 16 tokens");
}

size_t CodeCache::NameHash::operator()(const Sha256Digest& name) const {
  size_t head = 0;
  std::memcpy(&head, name.data(), sizeof head);
  return head;
}

CodeCache::Chunk CodeCache::take(const Sha256Digest& name) {
  const auto found = index_.find(name);
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->chunk;
}

CodeCache::Found CodeCache::find(const PrefixNames& names, int64_t skip_tokens) {
  return counted(search(names, skip_tokens), names.tokens());
}

CodeCache::Found CodeCache::find_or_fetch(const PrefixNames& names, int64_t skip_tokens, const Wanted& wanted) {
  Found found = search(names, skip_tokens);
  if (shared_ != nullptr && found.end < names.tokens()) fetch(names, skip_tokens, wanted, found);
  return counted(std::move(found), names.tokens());
}

CodeCache::Found CodeCache::counted(Found found, int64_t limit) {
  std::scoped_lock lock(mutex_);
  counters_.hits += found.chunks.size();
  if (found.end < limit) ++counters_.misses;
  return found;
}

// Whole chunks behind what was found, and the tail. They serve the request whether or not they fit the cache; a tail of
// another prompt that was found gives way to a whole chunk.
void CodeCache::fetch(const PrefixNames& names, int64_t skip_tokens, const Wanted& wanted, Found& found) {
  std::vector<Sha256Digest> missing;
  std::vector<TokenRange> ranges;
  for (int64_t end = found.end - found.end % chunk_tokens_; end < names.tokens();) {
    const int64_t first = std::max(end, skip_tokens);
    end = std::min(end + chunk_tokens_, names.tokens());
    if (end <= skip_tokens) continue;
    missing.push_back(names.of(end));
    ranges.push_back({first, end - first});
  }
  const std::vector<Chunk> chunks = shared_->fetch(missing);
  for (size_t i = 0; i < chunks.size() && i < ranges.size(); ++i) {
    const auto fits = [&](const CodeUnit& code, const CodedUnit& unit) {
      return code.layer == unit.first_layer && code.layers == unit.layers &&
             code.payload.bytes.size() <= wanted.most_payload_bytes;
    };
    if (chunks[i]->tokens != ranges[i] || !std::ranges::equal(chunks[i]->units, wanted.layers.units, fits)) return;
    while (!found.chunks.empty() && found.chunks.back()->tokens.end() > ranges[i].first) found.chunks.pop_back();
    found.chunks.push_back(chunks[i]);
    found.end = ranges[i].end();
    std::scoped_lock lock(mutex_);
    add(missing[i], chunks[i]);
  }
}

CodeCache::Found CodeCache::search(const PrefixNames& names, int64_t skip_tokens) {
  std::scoped_lock lock(mutex_);
  Found found;
  const int64_t limit = names.tokens();
  while (found.end < limit) {
    Chunk chunk;
    int64_t end = std::min(found.end + chunk_tokens_, limit);
    if (end <= skip_tokens) {  // nothing of it is ever sent
      found.end = end;
      continue;
    }
    // A whole chunk, else the longest tail that was the end of another prompt's hand-over.
    for (; end > std::max(found.end, skip_tokens); end -= kHandoverMultiple) {
      if ((chunk = take(names.of(end))) != nullptr) break;
    }
    if (chunk == nullptr) break;
    found.chunks.push_back(std::move(chunk));
    const bool whole = end == found.end + chunk_tokens_;
    found.end = end;
    if (!whole) break;
  }
  // A chunk is of no use without those before it, so these shall go later.
  for (auto chunk = found.chunks.rbegin(); chunk != found.chunks.rend(); ++chunk)
    take(names.of((*chunk)->tokens.end()));
  if (found.chunks.empty()) found.end = 0;
  return found;
}

void CodeCache::insert(const Sha256Digest& name, Chunk chunk) {
  {
    std::scoped_lock lock(mutex_);
    if (!add(name, chunk)) return;
  }
  if (shared_ != nullptr) shared_->keep(name, std::move(chunk));
}

// False where it is there already. One that is too large is kept elsewhere only.
bool CodeCache::add(const Sha256Digest& name, const Chunk& chunk) {
  if (take(name) != nullptr) return false;
  if (cost_of(*chunk) > capacity_) return true;
  counters_.bytes += cost_of(*chunk);
  entries_.push_front({name, chunk});
  index_[name] = entries_.begin();
  while (counters_.bytes > capacity_) {
    const Entry& last = entries_.back();
    counters_.bytes -= cost_of(*last.chunk);
    ++counters_.evictions;
    index_.erase(last.name);
    entries_.pop_back();
  }
  counters_.chunks = entries_.size();
  return true;
}

CodeCacheCounters CodeCache::counters() const {
  std::scoped_lock lock(mutex_);
  return counters_;
}

}  // namespace scd
