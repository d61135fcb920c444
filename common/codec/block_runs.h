// Which payloads that are read together become one block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "common/codec/codec.h"

namespace scd {

// Payloads of one block, in the order of their tokens, which follow each other.
struct BlockRun {
  std::vector<size_t> payloads;  // which of those that were given
  int64_t tokens = 0;
};

// By unit, then token; no block has more than `most_tokens`. alike: whether two payloads may be in one block.
std::vector<BlockRun> block_runs(std::span<const Payload> payloads, int64_t most_tokens,
                                 const std::function<bool(size_t, size_t)>& alike);

// Where a block goes.
PayloadPlace place_of(const BlockRun& run, std::span<const Payload> payloads);

}  // namespace scd
