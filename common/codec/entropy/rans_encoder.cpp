#include <algorithm>
#include <cstring>
#include <memory>
#include <ranges>

#include "common/base/check.h"
#include "common/codec/entropy/rans.h"
#include "common/codec/entropy/rans_steps.h"

namespace scd {
namespace {

using rans::States;

__extension__ using Wide = unsigned __int128;

// Words are written towards lower addresses: the decoder takes the last one first. Without branches, since whether a
// symbol writes one is as good as random; the place below the last word is scratch. Returns the step's complement.
inline uint32_t encode_one(const RansStep& step, uint32_t& state, uint16_t*& words) {
  words[-1] = static_cast<uint16_t>(state);
  const uint32_t writes = state > step.largest ? 1 : 0;
  const uint32_t small = state >> 16 * writes;
  words -= writes;
  const auto quotient = static_cast<uint32_t>(Wide{step.reciprocal} * small >> 64);
  state = small + step.bias + quotient * step.complement;
  return step.complement;
}

}  // namespace

bool rans::encode_groups_portable(const RansTable& table, States& states, uint16_t*& words,
                                  std::span<const uint8_t> symbols) {
  const RansStep* steps = table.steps();
  States lanes = states;  // a copy the compiler may keep in registers
  uint16_t* next = words;
  uint32_t seen = 0;
  for (const uint8_t* group = symbols.data() + symbols.size(); group != symbols.data();) {
    group -= kRansLanes;
#pragma GCC unroll 16
    for (size_t lane = kRansLanes; lane-- > 0;) seen |= encode_one(steps[group[lane]], lanes[lane], next);
  }
  states = lanes;
  words = next;
  return (seen & kRansTotal) == 0;
}

namespace {

rans::EncodeGroups encode_groups() {
  static const rans::EncodeGroups chosen = rans::has_avx2() ? rans::encode_groups_avx2 : rans::encode_groups_portable;
  return chosen;
}

// `end`: how many symbols of the stream there are up to the end of these.
void encode_run(const RansTable& table, std::span<const uint8_t> symbols, size_t end, States& states,
                uint16_t*& words) {
  uint32_t seen = 0;
  const auto singly = [&](size_t count) {
    for (; count > 0; --count, symbols = symbols.first(symbols.size() - 1)) {
      seen |= encode_one(table.steps()[symbols.back()], states[--end % kRansLanes], words);
    }
  };
  singly(std::min(end % kRansLanes, symbols.size()));
  const size_t grouped = symbols.size() / kRansLanes * kRansLanes;
  const bool known = encode_groups()(table, states, words, symbols.last(grouped));
  symbols = symbols.first(symbols.size() - grouped);
  end -= grouped;
  singly(symbols.size());
  SCD_CHECK(known && (seen & kRansTotal) == 0, "symbols their rANS table knows");
}

}  // namespace

void RansEncoder::finish(ByteBuffer& out) {
  size_t left = 0;
  for (const auto& [table, symbols] : runs_) left += symbols.size();
  const size_t most = left + rans::kScratchWords;  // a word a symbol, and the scratch below them
  const auto buffer = std::make_unique_for_overwrite<uint16_t[]>(most);
  uint16_t* const end = buffer.get() + most;
  uint16_t* words = end;
  States states;
  states.fill(rans::kLowerBound);
  for (const auto& [table, symbols] : runs_ | std::views::reverse) {
    encode_run(*table, symbols, left, states, words);
    left -= symbols.size();
  }
  runs_.clear();
  const auto head = std::as_bytes(std::span(states));
  out.insert(out.end(), head.begin(), head.end());
  const auto tail = std::as_bytes(std::span(words, end));
  out.insert(out.end(), tail.begin(), tail.end());
}

}  // namespace scd
