// Spans of what the compute thread queues on a GPU while what it queued before still runs: they are told a layer later,
// by the GPU's clock, so that it never waits for its next work. On the CPU, where ops are done when they return, they
// are told at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "kernels/queue_point.h"
#include "prefill_server/job.h"

namespace scd {

// For the compute thread.
class QueuedSpans {
 public:
  using Job = std::shared_ptr<PrefillJob>;  // shared as PrefillJob says

  // The thread is about to queue the next layer and what follows from it: all but the layer before is waited for.
  void begin_layer();
  // A span of what the thread queues from here to the end(), where it says which of the jobs waited for all of it. Of
  // kPrefill their own tokens take their shares, below 1 together where others share it.
  struct Share {
    Job job;
    double own = 0;
  };
  void begin(kernels::Device device);
  uint64_t end(PrefillPart part, std::vector<Share> shares);  // the span's number, from 1
  // Everything is waited for, or all up to a span, and the jobs have theirs.
  void settle() { settle(0); }
  void settle_until(uint64_t span);

 private:
  struct Queued {
    kernels::QueuePoint begin{kernels::QueuePoint::kTimed}, end{kernels::QueuePoint::kTimed};
    kernels::Device device = kernels::Device::kCpu;
    PrefillPart part = PrefillPart::kPrefill;
    PrefillClock::time_point begun = {};  // on the CPU
    std::vector<Share> shares = {};
  };
  void settle(size_t most_left);
  PrefillSpan span_of(const Queued& queued) const;  // which is done

  std::list<Queued> queued_, spare_, open_;  // open: not more than one
  uint64_t ended_ = 0;                       // spans so far
  size_t of_layer_ = 0;                      // of those at the end of queued_
  // A place in the GPU's queue and when it was reached here, before all that is queued.
  kernels::QueuePoint base_{kernels::QueuePoint::kTimed};
  PrefillClock::time_point base_time_ = {};
};

}  // namespace scd
