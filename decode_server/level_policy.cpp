#include "decode_server/level_policy.h"

#include <string>

#include "common/base/error.h"

namespace scd {
namespace {

constexpr double kWeight = 0.2;  // of a new measurement

std::vector<CodecPrediction> levels_of(const ArtifactDecoder& artifact) {
  return artifact.levels.empty() ? std::vector{artifact.prediction} : artifact.levels;
}

}  // namespace

LevelPolicy::LevelPolicy(const CodecOptions& codec, const ArtifactDecoder& artifact)
    : levels_(levels_of(artifact)), target_(codec.level < 0 ? codec.ttft_target : std::chrono::milliseconds(0)) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kFailedPrecondition, codec.artifact.string() + ": " + what);
  };
  const auto kl_of = [&](int32_t level) { return levels_[static_cast<size_t>(level)].kl; };
  if (codec.level >= levels()) {
    refuse("it has " + std::to_string(levels()) + " levels, codec.level is " + std::to_string(codec.level));
  }
  coarsest_ = levels() - 1;
  while (codec.max_kl > 0 && coarsest_ > 0 && kl_of(coarsest_) > codec.max_kl) --coarsest_;
  fixed_ = codec.level >= 0 ? codec.level : codec.max_kl > 0 ? coarsest_ : levels() / 2;
  if (codec.max_kl > 0 && kl_of(fixed_) > codec.max_kl) {
    refuse("its KL on held-out text is " + std::to_string(kl_of(fixed_)) + ", more than codec.max_kl " +
           std::to_string(codec.max_kl));
  }
}

int32_t LevelPolicy::choose(int64_t tokens) const {
  std::scoped_lock lock(mutex_);
  if (target_.count() == 0 || bytes_per_second_ == 0) return fixed_;
  const double allowed = bytes_per_second_ * std::chrono::duration<double>(target_).count();
  for (int32_t level = 0; level < coarsest_; ++level) {
    if (levels_[static_cast<size_t>(level)].bytes_per_token * static_cast<double>(tokens) <= allowed) return level;
  }
  return coarsest_;
}

void LevelPolicy::observe(int64_t bytes, std::chrono::nanoseconds busy) {
  if (bytes <= 0 || busy.count() <= 0) return;
  const double reached = static_cast<double>(bytes) / std::chrono::duration<double>(busy).count();
  std::scoped_lock lock(mutex_);
  bytes_per_second_ = bytes_per_second_ == 0 ? reached : bytes_per_second_ + kWeight * (reached - bytes_per_second_);
}

}  // namespace scd
