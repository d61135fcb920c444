// What `scd bench codec` measures on the CPU: an `rd` codec, whole and in parts, with values to code. All that depends
// on how the codec's classes are cut is in here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/rd/rd_maps.h"
#include "common/codec/rd/rd_state.h"
#include "tools/scd/codec_bench_maps.h"

namespace scd {

// What is coded at once: one layer of a chunk of tokens.
struct CodecBenchUnit {
  DenseMatrix encoder_map;  // [components, inputs]
  RdUnitDecoder decoder;
  DenseMatrix source;  // [tokens, inputs]: what the producer holds
  DenseMatrix anchor;  // [tokens, hidden of the consumer]; no columns where nothing is predicted
  DenseMatrix codes;   // [components, tokens]: normal values of the calibrated deviations
  std::shared_ptr<const RdRoundedUnit> rounded = {};  // where the machine multiplies BF16
};

class CodecBenchCase {
 public:
  CodecBenchCase(const CodecBenchMaps& maps, int64_t tokens);

  int64_t tokens() const { return tokens_; }
  const std::vector<CodecBenchUnit>& units() const { return units_; }
  const RdQuantiserSettings& quantiser() const { return quantiser_; }
  // The decoder multiplies in BF16; else in FP32.
  bool rounds() const { return !units_.empty() && units_.front().rounded != nullptr; }
  // Bytes of the units' keys and values in BF16.
  double raw_bytes() const { return raw_bytes_; }
  // The whole codec, as the servers call it: keys and values of a unit to a payload and back.
  ByteBuffer encode(size_t unit, int32_t level) const { return encode_(unit, level); }
  void decode(size_t unit, std::span<const std::byte> payload) const { decode_(unit, payload); }

 private:
  struct State;

  int64_t tokens_;
  std::vector<CodecBenchUnit> units_;
  RdQuantiserSettings quantiser_;
  double raw_bytes_ = 0;
  std::function<ByteBuffer(size_t, int32_t)> encode_;
  std::function<void(size_t, std::span<const std::byte>)> decode_;
};

}  // namespace scd
