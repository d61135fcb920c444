#include "decode_server/level_policy.h"

#include <string>

#include "common/base/error.h"

namespace scd {
namespace {

std::vector<CodecPrediction> levels_of(const ArtifactDecoder& artifact) {
  return artifact.levels.empty() ? std::vector{artifact.prediction} : artifact.levels;
}

}  // namespace

LevelPolicy::LevelPolicy(const CodecOptions& codec, const ArtifactDecoder& artifact)
    : levels_(levels_of(artifact)), target_(codec.level < 0 ? codec.ttft_target : std::chrono::milliseconds(0)) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kFailedPrecondition, codec.artifact.string() + ": " + what);
  };
  const auto kl_of = [&](int32_t level) { return levels_[static_cast<size_t>(level)].kl_upper; };
  if (codec.level >= levels()) {
    refuse("it has " + std::to_string(levels()) + " levels, codec.level is " + std::to_string(codec.level));
  }
  coarsest_ = levels() - 1;
  while (codec.max_kl > 0 && coarsest_ > 0 && kl_of(coarsest_) > codec.max_kl) --coarsest_;
  fixed_ = codec.level >= 0 ? codec.level : codec.max_kl > 0 ? coarsest_ : levels() / 2;
  if (codec.max_kl > 0 && kl_of(fixed_) > codec.max_kl) {
    refuse("the bound of its KL on held-out text is " + std::to_string(kl_of(fixed_)) + ", more than codec.max_kl " +
           std::to_string(codec.max_kl));
  }
}

int32_t LevelPolicy::choose(int64_t tokens, double bytes_per_second) const {
  if (target_.count() == 0 || bytes_per_second == 0) return fixed_;
  const double allowed = bytes_per_second * std::chrono::duration<double>(target_).count();
  for (int32_t level = 0; level < coarsest_; ++level) {
    if (bytes_per_token(level) * static_cast<double>(tokens) <= allowed) return level;
  }
  return coarsest_;
}

}  // namespace scd
