#include "kernels/queue_point.h"

#include "kernels/dispatch.h"

namespace scd::kernels {

QueuePoint::~QueuePoint() { SCD_ON(Device::kGpu, cuda::release_event(event_), static_cast<void>(0)); }

void QueuePoint::mark([[maybe_unused]] Device device) {
  event_ = SCD_ON(device, cuda::event_behind_queue(event_), nullptr);
}

void QueuePoint::wait() const {
  if (event_ != nullptr) SCD_ON(Device::kGpu, cuda::wait_for(event_), static_cast<void>(0));
}

}  // namespace scd::kernels
