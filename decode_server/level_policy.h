// Which level of the artifact's codec a request gets that names none: fixed by configuration, or the finest that
// crosses the link in time.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "common/codec/artifact.h"
#include "common/config/parts.h"

namespace scd {

class LevelPolicy {
 public:
  // Throws Error kFailedPrecondition when the level asked for does not exist or none meets max_kl.
  LevelPolicy(const CodecOptions& codec, const ArtifactDecoder& artifact);

  int32_t fixed() const { return fixed_; }  // where there is no target, or the link is not known
  int32_t levels() const { return static_cast<int32_t>(levels_.size()); }
  double bytes_per_token(int32_t level) const { return levels_[static_cast<size_t>(level)].bytes_per_token; }
  // Of a prompt with so many tokens to hand over, over a link of so many bytes a second (0: not known).
  int32_t choose(int64_t tokens, double bytes_per_second) const;

 private:
  std::vector<CodecPrediction> levels_;  // the finest first
  std::chrono::milliseconds target_;     // 0: none
  int32_t coarsest_ = 0;                 // that max_kl allows
  int32_t fixed_ = 0;
};

}  // namespace scd
