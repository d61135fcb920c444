#include "common/codec/block_runs.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace scd {

std::vector<BlockRun> block_runs(std::span<const Payload> payloads, int64_t most_tokens,
                                 const std::function<bool(size_t, size_t)>& alike) {
  std::vector<size_t> order(payloads.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {},
                    [&](size_t i) { return std::pair(payloads[i].place.layer, payloads[i].place.first_position); });
  std::vector<BlockRun> runs;
  for (const size_t i : order) {
    const PayloadPlace& place = payloads[i].place;
    const auto follows = [&](const BlockRun& run) {
      const PayloadPlace& last = payloads[run.payloads.back()].place;
      return last.layer == place.layer && last.first_position + last.tokens == place.first_position &&
             run.tokens + place.tokens <= most_tokens && alike(run.payloads.back(), i);
    };
    if (runs.empty() || !follows(runs.back())) runs.emplace_back();
    runs.back().payloads.push_back(i);
    runs.back().tokens += place.tokens;
  }
  return runs;
}

PayloadPlace place_of(const BlockRun& run, std::span<const Payload> payloads) {
  const PayloadPlace& first = payloads[run.payloads.front()].place;
  return {first.layer, first.first_position, run.tokens};
}

}  // namespace scd
