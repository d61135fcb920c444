// Which level of the artifact's codec a request gets that names none: fixed by configuration, or the finest that
// crosses the link in time, by what transfers have reached so far.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "common/codec/artifact.h"
#include "common/config/parts.h"

namespace scd {

// Thread-safe.
class LevelPolicy {
 public:
  // Throws Error kFailedPrecondition when the level asked for does not exist or none meets max_kl.
  LevelPolicy(const CodecOptions& codec, const ArtifactDecoder& artifact);

  int32_t fixed() const { return fixed_; }  // where there is no target, or nothing is measured yet
  int32_t levels() const { return static_cast<int32_t>(levels_.size()); }
  // Of a prompt with so many tokens to hand over.
  int32_t choose(int64_t tokens) const;
  // A transfer of so many bytes kept the wire busy for so long.
  void observe(int64_t bytes, std::chrono::nanoseconds busy);

 private:
  const std::vector<CodecPrediction> levels_;  // the finest first
  const std::chrono::milliseconds target_;     // 0: none
  int32_t coarsest_ = 0;                       // that max_kl allows
  int32_t fixed_ = 0;
  mutable std::mutex mutex_;
  double bytes_per_second_ = 0;  // moving average; 0 until measured
};

}  // namespace scd
