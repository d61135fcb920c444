#include <algorithm>
#include <cstring>

#include "common/codec/entropy/rans.h"
#include "common/codec/entropy/rans_steps.h"

namespace scd {
namespace rans {
namespace {

// Without branches: whether a lane takes a word is as good as random.
inline uint8_t decode_one(const uint32_t* slots, uint32_t& state, const std::byte*& words) {
  const uint32_t slot = slots[state & (kRansTotal - 1)];
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
  for (; done < groups && next <= end; ++done) {
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
  const auto words = stream.subspan(sizeof states_);
  // A take() reads this much beyond the end at most: a group that begins there, and less than another one singly.
  constexpr size_t kRoom = 2 * rans::kGroupWordBytes;
  words_ = std::make_unique_for_overwrite<std::byte[]>(words.size() + kRoom);
  std::ranges::copy(words, words_.get());
  std::fill_n(words_.get() + words.size(), kRoom, std::byte{0});
  next_ = words_.get();
  end_ = next_ + words.size();
}

void RansDecoder::take(const RansTable& table, std::span<uint8_t> symbols) {
  if (sound_) {
    const auto first = symbols.first(std::min((kRansLanes - next_lane_) % kRansLanes, symbols.size()));
    take_singly(table, first);
    symbols = symbols.subspan(first.size());
    const size_t groups = symbols.size() / kRansLanes;
    const size_t done = decode_groups()(table.slots(), states_, next_, end_, symbols.data(), groups);
    symbols = symbols.subspan(done * kRansLanes);
    sound_ = done == groups && next_ <= end_;
  }
  if (!sound_) return void(std::ranges::fill(symbols, uint8_t{0}));
  take_singly(table, symbols);
  sound_ = next_ <= end_;
}

void RansDecoder::take_singly(const RansTable& table, std::span<uint8_t> symbols) {
  for (uint8_t& symbol : symbols) {
    symbol = rans::decode_one(table.slots(), states_[next_lane_], next_);
    next_lane_ = (next_lane_ + 1) % kRansLanes;
  }
}

bool RansDecoder::finished() const {
  return sound_ && next_ == end_ &&
         std::ranges::all_of(states_, [](uint32_t state) { return state == rans::kLowerBound; });
}

}  // namespace scd
