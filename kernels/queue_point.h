// A place in what a thread has queued on a GPU, so that others than the last of it can be waited for.
#pragma once

#include "kernels/matrix.h"

namespace scd::kernels {

class QueuePoint {
 public:
  QueuePoint() = default;
  QueuePoint(const QueuePoint&) = delete;
  QueuePoint& operator=(const QueuePoint&) = delete;
  ~QueuePoint();

  // Behind everything that this thread has queued; nothing on the CPU, whose ops are done when they return.
  void mark(Device device);
  // Until what was before the last mark is done; not at all where there is none.
  void wait() const;

 private:
  void* event_ = nullptr;
};

}  // namespace scd::kernels
