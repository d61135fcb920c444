// Which pairs of tokens merge, into what, and how early: the merge list of a BPE model as a flat hash table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/token.h"

namespace scd {

struct Merge {
  uint32_t rank = 0;  // place in the merge list: lower goes first
  TokenId merged = -1;
};

class MergeTable {
 public:
  explicit MergeTable(size_t merge_count) {
    size_t slots = 16;
    while (slots < merge_count * 2) slots *= 2;
    slots_.resize(slots);
  }

  // At most merge_count different pairs; a later merge of the same pair takes the place of an earlier one.
  void insert(TokenId left, TokenId right, Merge merge) {
    Slot& slot = slots_[place(key(left, right))];
    slot = {key(left, right), merge};
  }

  const Merge* find(TokenId left, TokenId right) const {
    const Slot& slot = slots_[place(key(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = ~0ull;  // no pair: ids are never negative
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };

  static uint64_t key(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t wanted) const {
    size_t at = (wanted * 0x9E3779B97F4A7C15ull >> 20) & (slots_.size() - 1);
    while (slots_[at].key != wanted && slots_[at].key != kEmpty) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<Slot> slots_;  // at most half full, so that place() ends
};

}  // namespace scd
