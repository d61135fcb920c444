// What a consumer asks for, and what it will be sent: plain values that every stage reads.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/token.h"
#include "common/codec/codec.h"
#include "common/transport/message.h"
#include "common/transport/transport.h"

namespace scd {

using PrefillClock = std::chrono::steady_clock;

inline constexpr int64_t kHandoverMultiple = 16;  // tokens; hand-overs and stored prefixes end at multiples of it

struct PrefillRequest {
  uint64_t id = 0;
  uint32_t generation = 0;
  std::vector<TokenId> tokens;  // [0, handover_tokens)
  int64_t held_tokens = 0;      // the consumer has them already
  int64_t handover_tokens = 0;  // asked for
  int64_t skip_tokens = 0;      // in no payload
  int32_t first_layer = 0;      // layers before it are in no payload: the consumer computes them
  CodecChoice codec;
  TransferToken transfer_token{};
  std::string peer;  // the consumer's data plane
  uint64_t slot_bytes = 0;
  uint32_t credit_messages = 0;
  std::string cache_salt;
  PrefillClock::time_point received_at;
  PrefillClock::time_point deadline = PrefillClock::time_point::max();
};

struct TokenRange {
  int64_t first = 0;
  int64_t count = 0;
  int64_t end() const { return first + count; }
  bool operator==(const TokenRange&) const = default;
};

// The payload of one unit of layers of one chunk.
struct CodeUnit {
  int32_t layer = 0;  // the unit's first
  int32_t layers = 1;
  TokenRange tokens;
  uint8_t level = 0;
  uint32_t crc = 0;  // CRC-32C of the payload, made where it was encoded
  SharedBytes payload;
};

// Codes of a chunk as the code cache keeps them: the units of the request's plan, in their order.
struct StoredChunk {
  TokenRange tokens;
  std::vector<CodeUnit> units;
  size_t bytes() const {
    size_t sum = 0;
    for (const CodeUnit& unit : units) sum += unit.payload.bytes.size();
    return sum;
  }
};

// What will be sent: for each of `chunks` and each unit of layers, one message.
struct HandoverPlan {
  int64_t handover_tokens = 0;
  int64_t cached_tokens = 0;  // codes of tokens before it are stored
  std::vector<TokenRange> chunks;
  LayerPlan layers;  // sent of each chunk
  size_t messages() const { return chunks.size() * layers.units.size(); }
  // Start of what is sent; handover_tokens when nothing is.
  int64_t first_token() const { return chunks.empty() ? handover_tokens : chunks.front().first; }
};

// Chunks end at the multiples of chunk_tokens and at `end`; without the tokens before `skip`.
std::vector<TokenRange> chunks_until(int64_t end, int64_t skip, int64_t chunk_tokens);

struct StoredExtent {
  int64_t cached_tokens = 0;      // codes of [0, cached_tokens) are stored
  int64_t max_uncached_tail = 0;  // so little behind them is left to the consumer
};

// layers: of the encoder, for the request's first_layer.
HandoverPlan plan_handover(const PrefillRequest& request, const StoredExtent& stored, int64_t chunk_tokens,
                           LayerPlan layers);

}  // namespace scd
