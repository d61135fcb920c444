// What the prefill stage shows to the encode stage.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/paged_kv.h"
#include "prefill_server/handover.h"

namespace scd {

// A layer of a batch of one prompt's tokens, just run; valid until the next layer runs.
struct ComputedLayer {
  int32_t layer = 0;
  TokenRange tokens;
  kernels::PagedKv kv;
  std::span<const int32_t> page_ids;     // of the prompt
  kernels::ConstMatrix attention_input;  // [tokens.count, hidden] F32; empty where the encoder does not need it
};

}  // namespace scd
