// What a decoder made of a chunk, into the consumer's paged cache.
#pragma once

#include <cstdint>

#include "common/codec/codec.h"
#include "common/model/forward.h"

namespace scd {

struct DecodedPlace {
  const PageTable& pages;
  int32_t first_layer = 0;
  int64_t first_position = 0;
  int64_t skipped = 0;               // so many first tokens stay as they are in the cache
  const Adapter* adapter = nullptr;  // as in SequenceChunk
};

// Keys and values as they are, or from an attention input with the model's own weights. Not for residual streams.
void write_decoded(const Model& model, KvCache& cache, const DecodedPlace& place, const DecodedLayer& decoded);

// Rows from `skipped` on.
kernels::ConstMatrix decoded_rows(kernels::ConstMatrix rows, int64_t skipped);

}  // namespace scd
