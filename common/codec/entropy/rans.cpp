#include "common/codec/entropy/rans.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/error.h"

namespace scd {
namespace {

RansStep make_step(uint32_t frequency, uint32_t start) {
  const auto complement = static_cast<uint16_t>(kRansTotal - frequency);
  if (frequency == 0) return {0, 0, 0, complement};
  const auto largest = static_cast<uint32_t>((uint64_t{frequency} << (32 - kRansProbabilityBits)) - 1);
  // 2^64 / 1 does not fit: 2^64 - 1 gives x - 1 instead of x, which the bias makes good.
  if (frequency == 1) return {UINT64_MAX, largest, static_cast<uint16_t>(start + kRansTotal - 1), complement};
  return {UINT64_MAX / frequency + 1, largest, static_cast<uint16_t>(start), complement};
}

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

RansTable::RansTable(const RansFrequencies& frequencies) : slots_(kRansTotal) {
  uint32_t start = 0;
  for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
    const uint32_t frequency = frequencies[symbol];
    if (start + frequency > kRansTotal) throw Error(ErrorCode::kInvalidArgument, "rANS frequencies sum to over 4096");
    steps_[symbol] = make_step(frequency, start);
    ranges_[symbol] = start << 16 | frequency;
    for (uint32_t offset = 0; offset < frequency; ++offset) {
      slots_[start + offset] = static_cast<uint32_t>(symbol) << 24 | (frequency - 1) << kRansProbabilityBits | offset;
    }
    start += frequency;
  }
  if (start != kRansTotal) throw Error(ErrorCode::kInvalidArgument, "rANS frequencies sum to less than 4096");
}

}  // namespace scd
