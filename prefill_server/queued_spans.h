// Spans of what the compute thread queues on a GPU while what it queued before still runs: when each part is done is
// seen a layer later, so that the GPU never waits for its next work. On the CPU, where ops are done when they return,
// it is seen at once.
#pragma once

#include <cstddef>
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
  // What the thread queued since `started`, all of it waited for by each of the jobs. Of kPrefill their own tokens take
  // their shares of it, below 1 together where jobs share it with others.
  struct Share {
    Job job;
    double own = 0;
  };
  void add(PrefillPart part, PrefillClock::time_point started, std::vector<Share> shares, kernels::Device device);
  // Everything is waited for, and the jobs have their spans.
  void settle() { settle(0); }

 private:
  struct Queued {
    kernels::QueuePoint end;
    PrefillPart part = PrefillPart::kPrefill;
    PrefillClock::time_point started = {};
    std::vector<Share> shares = {};
  };
  void settle(size_t most_left);

  std::list<Queued> queued_, spare_;
  size_t of_layer_ = 0;                     // of those at the end of queued_
  PrefillClock::time_point last_end_ = {};  // as it was seen
};

}  // namespace scd
