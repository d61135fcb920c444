// Both sides of an `rd` codec to be timed: of an artifact, or made up for a shape.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "common/codec/codec_model.h"
#include "common/codec/rd/rd_maps.h"

namespace scd {

// A codec that nobody calibrated.
struct SyntheticShape {
  int32_t layers = 8;
  int64_t kv_heads = 3;
  int64_t head_dim = 64;
  std::vector<int64_t> components{120, 60, 30};  // a layer sends at each level, the finest first
};

struct CodecBenchMaps {
  CodecModel producer, consumer;
  RdEncoderMaps encoder;
  RdDecoderMaps decoder;

  // With the decoder of its first consumer.
  static CodecBenchMaps of_artifact(const std::filesystem::path& directory);
  // Each layer on its own, predicted from nothing.
  static CodecBenchMaps synthetic(const SyntheticShape& shape);
  // One level: groups of two layers, all predicted from one anchor; so many components a layer, whose deviations fall
  // from 8 steps to .36.
  static CodecBenchMaps grouped(const CodecModel& model, int32_t components);
};

}  // namespace scd
