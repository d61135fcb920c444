// Range asymmetric numeral systems with static tables: J. Duda, "Asymmetric numeral systems" (arXiv:1311.2540), in the
// 32-bit form that moves 16 bits at a time. Symbols are bytes; every run of symbols may have a table of its own, so a
// coder never adapts and any run costs what its table says.
//
// Stream: the final states of kRansLanes interleaved coders, 4 bytes each, then words of 2 bytes, all little-endian.
// Symbol i belongs to lane i mod kRansLanes: lanes are independent, which is what keeps a CPU's pipeline, its vector
// units or a warp busy. Every variant of the coders (rans_steps.h) gives the same bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/base/byte_buffer.h"

namespace scd {

inline constexpr int kRansProbabilityBits = 12;
inline constexpr uint32_t kRansTotal = 1U << kRansProbabilityBits;
inline constexpr size_t kRansLanes = 16;
inline constexpr size_t kRansSymbols = 256;

// Frequencies of the 256 symbols; they sum to kRansTotal. A symbol of frequency 0 cannot be coded.
using RansFrequencies = std::array<uint16_t, kRansSymbols>;

// Counts scaled to kRansTotal: every symbol that occurs keeps at least 1, the rest goes where it costs least. All zero
// counts give symbol 0 everything.
RansFrequencies scale_to_frequencies(std::span<const uint64_t, kRansSymbols> counts);

// One step of a coder over a symbol of frequency f and start c: x' = floor(x / f) 4096 + x mod f + c, as
// x + bias + floor(x / f) complement.
struct RansStep {
  uint64_t reciprocal;  // floor(x reciprocal / 2^64) is x / f rounded down, for every x below 2^32
  uint32_t largest;     // state from which a step stays below 2^32; of a larger one a word is written before
  uint16_t bias;
  uint16_t complement;  // 4096 - f; 4096 says that the symbol cannot be coded
};

class RansTable {
 public:
  // Throws Error INVALID_ARGUMENT when the frequencies do not sum to kRansTotal.
  explicit RansTable(const RansFrequencies& frequencies);

  uint32_t frequency(uint8_t symbol) const { return kRansTotal - steps_[symbol].complement; }
  // By symbol: what an encoder needs.
  const RansStep* steps() const { return steps_.data(); }
  // By symbol: start << 16 | frequency.
  const uint32_t* ranges() const { return ranges_.data(); }
  // By the low bits of a state: symbol << 24 | (frequency - 1) << 12 | distance from the symbol's start.
  const uint32_t* slots() const { return slots_.data(); }

 private:
  std::array<RansStep, kRansSymbols> steps_;
  std::array<uint32_t, kRansSymbols> ranges_;
  std::vector<uint32_t> slots_;
};

// Collects runs, then writes them: coding goes from the last symbol to the first.
class RansEncoder {
 public:
  // Both must stay until finish(). Every symbol needs a frequency above 0.
  void put(const RansTable& table, std::span<const uint8_t> symbols) { runs_.emplace_back(&table, symbols); }
  // Appends the stream and forgets the runs.
  void finish(ByteBuffer& out);

 private:
  std::vector<std::pair<const RansTable*, std::span<const uint8_t>>> runs_;
};

// Reads what RansEncoder wrote, run by run with the same tables and lengths. Untrusted bytes: it never reads past them,
// and finished() tells whether they were exactly such a stream.
class RansDecoder {
 public:
  explicit RansDecoder(std::span<const std::byte> stream);

  // Fills `symbols`. A stream that is too short gives symbols of no meaning, zeros at last; finished() is false then.
  void take(const RansTable& table, std::span<uint8_t> symbols);
  // All words are read and every lane is back where the encoder began.
  bool finished() const;

 private:
  void take_singly(const RansTable& table, std::span<uint8_t> symbols);

  std::unique_ptr<std::byte[]> words_;  // a copy with room behind it: loops look for its end once a group of symbols
  const std::byte* next_ = nullptr;
  const std::byte* end_ = nullptr;
  std::array<uint32_t, kRansLanes> states_{};  // by lane
  size_t next_lane_ = 0;
  bool sound_ = true;
};

}  // namespace scd
