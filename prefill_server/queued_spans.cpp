#include "prefill_server/queued_spans.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace scd {

void QueuedSpans::begin_layer() {
  settle(of_layer_);
  of_layer_ = 0;
}

void QueuedSpans::add(PrefillPart part, PrefillClock::time_point started, std::vector<Share> shares,
                      kernels::Device device) {
  if (spare_.empty()) spare_.emplace_back();
  queued_.splice(queued_.end(), spare_, spare_.begin());
  Queued& queued = queued_.back();
  queued.part = part;
  queued.started = started;
  queued.shares = std::move(shares);
  ++of_layer_;
  if (device == kernels::Device::kCpu) return settle();
  queued.end.mark(device);
}

void QueuedSpans::settle(size_t most_left) {
  while (queued_.size() > most_left) {
    Queued& oldest = queued_.front();
    oldest.end.wait();
    const auto end = PrefillClock::now();
    const auto start = std::max(oldest.started, last_end_);  // the queue works on one after the other
    for (const Share& share : oldest.shares) {
      share.job->spans.add({oldest.part, start, end});
      if (oldest.part != PrefillPart::kPrefill) continue;
      share.job->spans.add_computed(std::chrono::duration_cast<PrefillClock::duration>((end - start) * share.own));
    }
    oldest.shares.clear();
    last_end_ = end;
    spare_.splice(spare_.end(), queued_, queued_.begin());
  }
  of_layer_ = std::min(of_layer_, queued_.size());
}

}  // namespace scd
