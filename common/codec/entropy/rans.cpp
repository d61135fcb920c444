#include "common/codec/entropy/rans.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <ranges>

#include "common/base/check.h"
#include "common/base/error.h"

namespace scd {
namespace {

constexpr uint32_t kLowerBound = 1U << 16;  // states lie in [kLowerBound, 2^32)
constexpr size_t kStateBytes = sizeof(uint32_t) * kRansLanes;

}  // namespace

RansFrequencies scale_to_frequencies(std::span<const uint64_t, kRansSymbols> counts) {
  RansFrequencies frequencies{};
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (total == 0) {
    frequencies[0] = kRansTotal;
    return frequencies;
  }
  int64_t sum = 0;
  for (size_t i = 0; i < kRansSymbols; ++i) {
    if (counts[i] == 0) continue;
    const double share = static_cast<double>(counts[i]) / total * kRansTotal;
    frequencies[i] = static_cast<uint16_t>(std::max(1.0, std::floor(share)));
    sum += frequencies[i];
  }
  // One step of a frequency f changes the cost by about count / f bits: give where that is most, take where least.
  const auto gain = [&](size_t i, int step) {
    const double from = frequencies[i], to = from + step;
    return static_cast<double>(counts[i]) * std::log2(to / from);
  };
  for (; sum != kRansTotal; sum += sum < kRansTotal ? 1 : -1) {
    const int step = sum < kRansTotal ? 1 : -1;
    size_t best = kRansSymbols;
    for (size_t i = 0; i < kRansSymbols; ++i) {
      if (counts[i] == 0 || frequencies[i] + step < 1) continue;
      if (best == kRansSymbols || gain(i, step) > gain(best, step)) best = i;
    }
    frequencies[best] = static_cast<uint16_t>(frequencies[best] + step);
  }
  return frequencies;
}

RansTable::RansTable(const RansFrequencies& frequencies) : frequencies_(frequencies), slots_(kRansTotal) {
  uint32_t start = 0;
  for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
    const uint32_t frequency = frequencies[symbol];
    if (start + frequency > kRansTotal) throw Error(ErrorCode::kInvalidArgument, "rANS frequencies sum to over 4096");
    starts_[symbol] = static_cast<uint16_t>(start);
    for (uint32_t offset = 0; offset < frequency; ++offset) {
      slots_[start + offset] = {static_cast<uint16_t>(frequency), static_cast<uint16_t>(offset),
                                static_cast<uint8_t>(symbol)};
    }
    start += frequency;
  }
  if (start != kRansTotal) throw Error(ErrorCode::kInvalidArgument, "rANS frequencies sum to less than 4096");
}

void RansEncoder::finish(ByteBuffer& out) {
  size_t left = 0;
  for (const auto& [table, symbols] : runs_) left += symbols.size();
  std::array<uint32_t, kRansLanes> states;
  states.fill(kLowerBound);
  words_.clear();
  for (const auto& [table, symbols] : runs_ | std::views::reverse) {
    for (const uint8_t symbol : symbols | std::views::reverse) {
      uint32_t& state = states[--left % kRansLanes];
      const uint32_t frequency = table->frequencies_[symbol];
      SCD_CHECK(frequency > 0, "a symbol its rANS table knows");
      // Symbols of frequency f are coded from states below f << (32 - kRansProbabilityBits).
      if (state >= uint64_t{frequency} << (32 - kRansProbabilityBits)) {
        words_.push_back(static_cast<uint16_t>(state));
        state >>= 16;
      }
      state = (state / frequency << kRansProbabilityBits) + state % frequency + table->starts_[symbol];
    }
  }
  runs_.clear();
  const size_t start = out.size();
  out.resize(start + kStateBytes);
  std::memcpy(out.data() + start, states.data(), kStateBytes);
  std::ranges::reverse(words_);
  const auto words = std::as_bytes(std::span(words_));
  out.insert(out.end(), words.begin(), words.end());
}

RansDecoder::RansDecoder(std::span<const std::byte> stream) : sound_(stream.size() >= kStateBytes) {
  if (!sound_) return;
  std::memcpy(states_.data(), stream.data(), kStateBytes);
  sound_ = std::ranges::all_of(states_, [](uint32_t state) { return state >= kLowerBound; });
  words_ = stream.subspan(kStateBytes);
}

void RansDecoder::take(const RansTable& table, std::span<uint8_t> symbols) {
  constexpr uint32_t kMask = kRansTotal - 1;
  const RansTable::Slot* slots = table.slots_.data();
  const std::byte* word = words_.data();
  size_t words = words_.size() / sizeof(uint16_t);
  size_t lane = next_lane_;
  for (uint8_t& symbol : symbols) {
    uint32_t& state = states_[lane];
    lane = (lane + 1) % kRansLanes;
    const RansTable::Slot& slot = slots[state & kMask];
    symbol = slot.symbol;
    state = slot.frequency * (state >> kRansProbabilityBits) + slot.offset;
    if (state >= kLowerBound) continue;
    if (words == 0) {
      sound_ = false;
      state |= kLowerBound;
      continue;
    }
    uint16_t next;
    std::memcpy(&next, word, sizeof next);
    state = state << 16 | next;
    word += sizeof next;
    --words;
  }
  next_lane_ = lane;
  words_ = words_.subspan(static_cast<size_t>(word - words_.data()));
}

bool RansDecoder::finished() const {
  return sound_ && words_.empty() && std::ranges::all_of(states_, [](uint32_t state) { return state == kLowerBound; });
}

}  // namespace scd
