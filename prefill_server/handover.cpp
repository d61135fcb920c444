#include "prefill_server/handover.h"

#include <algorithm>
#include <utility>

namespace scd {

std::vector<TokenRange> chunks_until(int64_t end, int64_t skip, int64_t chunk_tokens) {
  std::vector<TokenRange> chunks;
  for (int64_t begin = 0; begin < end; begin += chunk_tokens) {
    const int64_t first = std::max(begin, skip);
    const int64_t chunk_end = std::min(begin + chunk_tokens, end);
    if (first < chunk_end) chunks.push_back({first, chunk_end - first});
  }
  return chunks;
}

HandoverPlan plan_handover(const PrefillRequest& request, const StoredExtent& stored, int64_t chunk_tokens,
                           LayerPlan layers) {
  HandoverPlan plan{.handover_tokens = request.handover_tokens,
                    .cached_tokens = stored.cached_tokens,
                    .chunks = {},
                    .layers = std::move(layers)};
  const int64_t missing = request.handover_tokens - stored.cached_tokens;
  // A consumer that holds more than is stored gains nothing from a shorter hand-over.
  if (stored.cached_tokens > std::max(request.held_tokens, request.skip_tokens) &&
      missing <= stored.max_uncached_tail) {
    plan.handover_tokens = stored.cached_tokens;
  }
  // The tail of another prompt's hand-over is of use only where this one ends there too.
  if (plan.cached_tokens != plan.handover_tokens) plan.cached_tokens -= plan.cached_tokens % chunk_tokens;
  plan.chunks = chunks_until(plan.handover_tokens, request.skip_tokens, chunk_tokens);
  std::erase_if(plan.chunks, [&](const TokenRange& chunk) { return chunk.end() <= request.held_tokens; });
  return plan;
}

}  // namespace scd
