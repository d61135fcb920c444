// What the prefill stage shows to the encode stage.
#pragma once

#include <cstdint>
#include <span>

#include "common/kv/kv_cache.h"
#include "prefill_server/handover.h"

namespace scd {

// The residual stream of a batch of one prompt's tokens before a layer runs; valid until it does.
struct ResidualStream {
  int32_t layer = 0;
  TokenRange tokens;
  kernels::ConstMatrix rows;  // [tokens.count, hidden] F32
};

// A layer of a batch of one prompt's tokens, just run; valid until the next layer runs.
struct ComputedLayer {
  int32_t layer = 0;
  TokenRange tokens;
  const KvCache& cache;                  // holds this layer and those before it
  std::span<const int32_t> page_ids;     // of the prompt
  kernels::ConstMatrix attention_input;  // [tokens.count, hidden] F32; empty where the encoder does not need it
};

}  // namespace scd
