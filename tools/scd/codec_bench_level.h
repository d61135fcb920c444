// The parts of codec `rd` at one level, timed one after the other over the same values.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "common/codec/entropy/rans.h"
#include "common/codec/rd/rd_quantiser.h"
#include "tools/scd/codec_bench_case.h"

namespace scd {

double seconds_of(const auto& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Seconds of one part, again and again.
class Samples {
 public:
  void add(double seconds) { seconds_.push_back(seconds); }
  double median() const {
    auto sorted = seconds_;
    std::ranges::sort(sorted);
    return sorted[sorted.size() / 2];
  }

 private:
  std::vector<double> seconds_;
};

// Of all units of the case.
struct CodecPart {
  Samples encode, decode;
};

class CodecBenchLevel {
 public:
  // All must stay. tables: those of the quantiser.
  CodecBenchLevel(const CodecBenchCase& codec, const RdQuantiser& quantiser, const std::vector<RansTable>& tables,
                  int32_t level);

  // One more sample of every part.
  void measure();

  int32_t level() const { return level_; }
  double components() const { return components_; }  // of all units
  double symbols() const { return components_ * static_cast<double>(codec_.tokens()); }
  // Of the GEMMs that turn keys and values into codes, and codes and what they are predicted from back.
  double encode_flops() const;
  double decode_flops() const;
  // Bits that the bodies take, by component of a token.
  double bits_per_component(RdForm form) const;

  const CodecPart& transform() const { return transform_; }       // the linear maps alone
  const CodecPart& quantiser() const { return quantiser_part_; }  // symbols and their rANS stream
  const CodecPart& rans() const { return rans_; }                 // the streams alone
  const CodecPart& packed() const { return packed_; }             // symbols, packed instead of rANS
  const CodecPart& whole() const { return whole_; }               // as the servers call it

 private:
  // A unit at this level.
  struct Planes {
    int64_t components = 0;
    std::vector<const RansTable*> tables;  // by component
    std::vector<uint8_t> symbols;          // [components, tokens], as the quantiser makes them
    ByteBuffer stream, entropy, packed;
    DenseMatrix codes;  // [components, tokens]
  };

  void prepare(size_t index);
  void measure_transform();
  void measure_symbols(RdForm form, CodecPart& part);
  void measure_rans();
  void measure_whole();

  const CodecBenchCase& codec_;
  const RdQuantiser& quantiser_;
  const std::vector<RansTable>& tables_;
  int32_t level_;
  double components_ = 0;
  std::vector<Planes> planes_;
  std::vector<ByteBuffer> payloads_;
  CodecPart transform_, quantiser_part_, packed_, rans_, whole_;
};

}  // namespace scd
