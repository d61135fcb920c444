// What the prefill stage shows to the encode stage.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "common/kv/kv_cache.h"
#include "prefill_server/job.h"

namespace scd {

// Tokens of one prompt that a step computes.
struct StepPart {
  std::shared_ptr<PrefillJob> job;  // shared as PrefillJob says
  TokenRange tokens;
};

// The residual stream of a step's tokens of one prompt before a layer runs; valid until it does.
struct ResidualStream {
  int32_t layer = 0;
  TokenRange tokens;
  kernels::ConstMatrix rows;  // [tokens.count, hidden] F32
};

// A layer of a step's tokens of one prompt, just run; valid until the next layer runs.
struct ComputedLayer {
  int32_t layer = 0;
  TokenRange tokens;
  const KvCache& cache;                  // holds this layer and those before it
  std::span<const int32_t> page_ids;     // of the prompt
  kernels::ConstMatrix attention_input;  // [tokens.count, hidden] F32; empty where the encoder does not need it
};

}  // namespace scd
