#include "decode_server/receive/prefix_memory.h"

#include <algorithm>

namespace scd {
namespace {

constexpr size_t kMostHolders = 16;  // of a block

// The finaliser of SplitMix64: an error here costs a detour, so nothing cryptographic is needed.
uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

std::vector<uint64_t> prefix_blocks(std::span<const TokenId> tokens, std::string_view cache_salt) {
  uint64_t hash = mix(cache_salt.size());
  for (const char byte : cache_salt) hash = mix(hash ^ static_cast<uint8_t>(byte));
  std::vector<uint64_t> blocks;
  blocks.reserve(tokens.size() / kPrefixBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    hash = mix(hash ^ static_cast<uint32_t>(tokens[i]));
    if ((i + 1) % kPrefixBlockTokens == 0) blocks.push_back(hash);
  }
  return blocks;
}

void PrefixMemory::add(Holder holder, std::span<const uint64_t> blocks) {
  // Of a prompt longer than all there is room for, the beginning is worth the most.
  for (const uint64_t block : blocks.first(std::min(blocks.size(), capacity_))) {
    auto found = entries_.find(block);
    if (found == entries_.end()) {
      if (entries_.size() >= capacity_) {
        entries_.erase(ages_.front());
        ages_.pop_front();
      }
      found = entries_.emplace(block, Entry{{}, ages_.insert(ages_.end(), block)}).first;
    }
    Entry& entry = found->second;
    touch(entry);
    std::erase(entry.holders, holder);
    if (entry.holders.size() >= kMostHolders) entry.holders.erase(entry.holders.begin());
    entry.holders.push_back(holder);
  }
}

std::map<PrefixMemory::Holder, size_t> PrefixMemory::find(std::span<const uint64_t> blocks) {
  std::map<Holder, size_t> lengths;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto found = entries_.find(blocks[i]);
    if (found == entries_.end()) break;
    touch(found->second);
    for (const Holder holder : found->second.holders) {
      size_t& length = lengths[holder];
      if (length == i) length = i + 1;
    }
  }
  std::erase_if(lengths, [](const auto& entry) { return entry.second == 0; });
  return lengths;
}

}  // namespace scd
