// What `scd bench codec` measures: the maps and the quantiser of an `rd` codec, of an artifact or made up, with values
// to code. All that depends on how the codec's classes are cut is in here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/rd/rd_maps.h"
#include "common/codec/rd/rd_state.h"

namespace scd {

// A codec that nobody calibrated.
struct SyntheticShape {
  int32_t layers = 8;
  int64_t kv_heads = 3;
  int64_t head_dim = 64;
  std::vector<int64_t> components{120, 60, 30};  // a layer sends at each level, the finest first
};

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
  static CodecBenchCase of_artifact(const std::filesystem::path& directory, int64_t tokens);
  static CodecBenchCase synthetic(const SyntheticShape& shape, int64_t tokens);

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
  explicit CodecBenchCase(int64_t tokens) : tokens_(tokens) {}
  struct Codec;
  struct State;
  static CodecBenchCase make(const Codec& codec, int64_t tokens);

  int64_t tokens_;
  std::vector<CodecBenchUnit> units_;
  RdQuantiserSettings quantiser_;
  double raw_bytes_ = 0;
  std::function<ByteBuffer(size_t, int32_t)> encode_;
  std::function<void(size_t, std::span<const std::byte>)> decode_;
};

}  // namespace scd
