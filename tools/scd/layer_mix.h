// A consumer's cache put together layer by layer from the true one, Reuse and Patch, over several windows at once, and
// the KL that each mix gives on the windows' last tokens: what the patch search measures with.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/codec/codec.h"
#include "common/model/model.h"
#include "tools/scd/cache_experiment.h"
#include "tools/scd/calibration_text.h"

namespace scd {

enum class LayerSource : uint8_t { kTruth, kReuse, kPatch };

class LayerMix {
 public:
  // Prefills both models over each window's hand-over. Windows too short for one are left out; throws Error
  // kInvalidArgument when none is left. The models must outlive it. scored: of each window, how many last tokens
  // mean_kl is about; nothing: all that the consumer runs itself.
  LayerMix(const Model& producer, const Model& consumer, std::span<const TokenWindow> windows,
           const CacheExperimentOptions& options, std::span<const int64_t> scored = {});
  ~LayerMix();
  LayerMix(const LayerMix&) = delete;
  LayerMix& operator=(const LayerMix&) = delete;

  // Rebuilds these layers through a codec that codes each layer on its own and keeps the result as what kReuse or
  // kPatch means for them.
  void rebuild(LayerSource kept_as, const Encoder& encoder, const Decoder& decoder, std::span<const int32_t> layers);

  // Mean KL(true cache || mix) over all scored tokens, nats. sources: one a layer; layer 0 is exact where the options
  // say so, whatever its source.
  double mean_kl(std::span<const LayerSource> sources);

  int64_t handed_over_tokens() const;  // of all windows, sinks excluded
  int64_t windows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace scd
