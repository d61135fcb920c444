#include "kernels/queue_point.h"

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {

QueuePoint::~QueuePoint() { SCD_ON(Device::kGpu, cuda::release_event(event_), static_cast<void>(0)); }

void QueuePoint::mark([[maybe_unused]] Device device) {
  if (device == Device::kCpu) return;  // an event there is stays, and has been reached
  event_ = SCD_ON(device, cuda::event_behind_queue(event_, kind_ == kTimed), nullptr);
}

void QueuePoint::wait() const {
  if (event_ != nullptr) SCD_ON(Device::kGpu, cuda::wait_for(event_), static_cast<void>(0));
}

std::chrono::duration<double> QueuePoint::between([[maybe_unused]] const QueuePoint& earlier,
                                                  [[maybe_unused]] const QueuePoint& later) {
  require_device_in_build(Device::kGpu);
  require(earlier.kind_ == kTimed && later.kind_ == kTimed, "times between places of a queue that have none");
  return SCD_ON(Device::kGpu, cuda::time_between(earlier.event_, later.event_), std::chrono::duration<double>{});
}

}  // namespace scd::kernels
