// Codec rd on a GPU at work on a made-up prompt, as a whole and part by part: pages to codes to payloads, and back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "tools/scd/codec_bench_maps.h"

namespace scd {

struct CodecBenchPrompt {
  int64_t tokens = 8192;
  int64_t batch_tokens = 8192;  // computed and encoded together
  int64_t chunk_tokens = 128;   // of a payload
};

// Of the prompt, all units.
struct CodecBenchTimes {
  double encode_seconds = 0.0;    // pages to payloads
  double codes_seconds = 0.0;     // of it, pages to codes
  double coding_seconds = 0.0;    // of it, codes to payloads
  double rebuild_seconds = 0.0;   // payloads to pages
  double reading_seconds = 0.0;   // of it, payloads to codes
  double products_seconds = 0.0;  // of it, codes to pages
  double encode_flops = 0.0, rebuild_flops = 0.0;
  double codes = 0.0;  // numbers
  double payload_bytes = 0.0;

  // What has to cross the GPU's memory: codes are F32 before the coder, and BF16 behind it.
  double coding_bytes() const { return 4 * codes + payload_bytes; }
  double reading_bytes() const { return 2 * codes + payload_bytes; }
};

// Of the same codes by the host's entropy coder on all cores, with what that costs the bus.
struct CodecBenchHostTimes {
  double fetch_seconds = 0.0;    // codes from the GPU
  double coding_seconds = 0.0;   // codes to payloads
  double reading_seconds = 0.0;  // payloads to codes
  double return_seconds = 0.0;   // codes to the GPU
};

// Seconds of an action, the best of several.
using BestSeconds = std::function<double(const std::function<void()>&)>;

class CodecBenchOnDevice {
 public:
  // Pages, anchors and residual streams are of normally distributed numbers, and the encoder's rows are scaled for
  // them: their codes have the deviations that were calibrated. Throws Error kFailedPrecondition where maps and models
  // do not fit or the decoder is one of those that work on the CPU.
  CodecBenchOnDevice(CodecBenchMaps maps, const CodecBenchPrompt& prompt);
  ~CodecBenchOnDevice();

  int32_t levels() const;
  CodecBenchTimes measure(int32_t level, const BestSeconds& best_seconds);
  // Throws Error kInternal where host and GPU do not make the same bytes.
  CodecBenchHostTimes measure_host(int32_t level, const BestSeconds& best_seconds);

 private:
  class Work;
  std::unique_ptr<Work> work_;
};

}  // namespace scd
