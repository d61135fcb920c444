// A place in what a thread has queued on a GPU, so that others than the last of it can be waited for.
#pragma once

#include <chrono>

#include "kernels/matrix.h"

namespace scd::kernels {

class QueuePoint {
 public:
  enum Kind { kUntimed, kTimed };
  explicit QueuePoint(Kind kind = kUntimed) : kind_(kind) {}
  QueuePoint(const QueuePoint&) = delete;
  QueuePoint& operator=(const QueuePoint&) = delete;
  ~QueuePoint();

  // Behind everything that this thread has queued; nothing on the CPU, whose ops are done when they return.
  void mark(Device device);
  // Until what was before the last mark is done; not at all where there is none.
  void wait() const;

  // Of two timed ones of a thread, both of which have been waited for: by the GPU's clock, in steps of half a
  // microsecond at first and coarser as they lie further apart.
  static std::chrono::duration<double> between(const QueuePoint& earlier, const QueuePoint& later);

 private:
  Kind kind_;
  void* event_ = nullptr;
};

}  // namespace scd::kernels
