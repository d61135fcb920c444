#include <algorithm>
#include <cstring>

#include "common/codec/entropy/rans.h"
#include "common/codec/entropy/rans_steps.h"

namespace scd {
namespace rans {
namespace {

constexpr uint32_t kSlotMask = kRansTotal - 1;

// Without branches: whether a lane takes a word is as good as random.
inline uint8_t decode_one(const uint32_t* slots, uint32_t& state, const std::byte*& words) {
  const uint32_t slot = slots[state & kSlotMask];
  const uint32_t next = decode_step(slot, state);
  uint16_t word;
  std::memcpy(&word, words, sizeof word);
  const uint32_t takes = next < kLowerBound ? 1 : 0;
  state = next << 16 * takes | (word & (0 - takes));
  words += kWordBytes * takes;
  return static_cast<uint8_t>(slot >> 24);
}

}  // namespace

size_t decode_groups_portable(const uint32_t* slots, States& states, const std::byte*& words, const std::byte* end,
                              uint8_t* symbols, size_t groups) {
  States lanes = states;  // a copy the compiler may keep in registers
  const std::byte* next = words;
  size_t done = 0;
  for (; done < groups && static_cast<size_t>(end - next) >= kGroupWordBytes; ++done) {
#pragma GCC unroll 16
    for (size_t lane = 0; lane < kRansLanes; ++lane) symbols[lane] = decode_one(slots, lanes[lane], next);
    symbols += kRansLanes;
  }
  states = lanes;
  words = next;
  return done;
}

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"); }
#else
bool has_avx2() { return false; }
#endif

}  // namespace rans

namespace {

rans::DecodeGroups decode_groups() {
  static const rans::DecodeGroups chosen = rans::has_avx2() ? rans::decode_groups_avx2 : rans::decode_groups_portable;
  return chosen;
}

}  // namespace

RansDecoder::RansDecoder(std::span<const std::byte> stream) : sound_(stream.size() >= sizeof states_) {
  if (!sound_) return;
  std::memcpy(states_.data(), stream.data(), sizeof states_);
  sound_ = std::ranges::all_of(states_, [](uint32_t state) { return state >= rans::kLowerBound; });
  words_ = stream.subspan(sizeof states_);
}

void RansDecoder::take(const RansTable& table, std::span<uint8_t> symbols) {
  const size_t to_lane_0 = std::min((kRansLanes - next_lane_) % kRansLanes, symbols.size());
  take_singly(table, symbols.first(to_lane_0));
  symbols = symbols.subspan(to_lane_0);
  const std::byte* words = words_.data();
  const size_t groups = decode_groups()(table.slots(), states_, words, words + words_.size(), symbols.data(),
                                        symbols.size() / kRansLanes);
  words_ = words_.last(words_.size() - static_cast<size_t>(words - words_.data()));
  take_singly(table, symbols.subspan(groups * kRansLanes));
}

void RansDecoder::take_singly(const RansTable& table, std::span<uint8_t> symbols) {
  for (uint8_t& symbol : symbols) {
    uint32_t& state = states_[next_lane_];
    next_lane_ = (next_lane_ + 1) % kRansLanes;
    const uint32_t slot = table.slots()[state & (kRansTotal - 1)];
    symbol = static_cast<uint8_t>(slot >> 24);
    state = rans::decode_step(slot, state);
    if (state >= rans::kLowerBound) continue;
    if (words_.size() < rans::kWordBytes) {
      sound_ = false;
      state |= rans::kLowerBound;
      continue;
    }
    uint16_t word;
    std::memcpy(&word, words_.data(), sizeof word);
    state = state << 16 | word;
    words_ = words_.subspan(sizeof word);
  }
}

bool RansDecoder::finished() const {
  return sound_ && words_.empty() &&
         std::ranges::all_of(states_, [](uint32_t state) { return state == rans::kLowerBound; });
}

}  // namespace scd
