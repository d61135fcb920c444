// Codec rd on a GPU at work on a made-up prompt: pages to payloads, and payloads to pages.
#pragma once

#include <cstdint>
#include <functional>

#include "common/codec/codec_model.h"
#include "kernels/matrix.h"

namespace scd {

struct RdBenchSettings {
  CodecModel model;  // both sides
  kernels::DType precision = kernels::DType::kBF16;
  int64_t tokens = 8192;        // of the prompt
  int64_t batch_tokens = 8192;  // computed and encoded together
  int64_t chunk_tokens = 128;   // of a payload
  int32_t components = 200;     // of a layer
};

struct RdBenchResult {
  double encode_seconds = 0.0, rebuild_seconds = 0.0;  // of the prompt
  double codes_seconds = 0.0;                          // of encoding: without the coder
  double read_seconds = 0.0;                           // of rebuilding: payloads to codes
  double encode_flops = 0.0, rebuild_flops = 0.0;
  double payload_bytes = 0.0;
};

// Keys, values and residual streams of normally distributed numbers; codes whose deviations fall from 8 steps to .36,
// coded in groups of two layers and predicted from one anchor. best_seconds: of calls of an action.
RdBenchResult bench_rd_on_device(const RdBenchSettings& settings,
                                 const std::function<double(const std::function<void()>&)>& best_seconds);

}  // namespace scd
