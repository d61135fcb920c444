#include "common/transport/send_inbox.h"

#include <limits>
#include <string>
#include <utility>

namespace scd {

Result<Done> SendInbox::submit(SendJob job) {
  if (job.payload.bytes.size() > std::numeric_limits<uint32_t>::max()) {
    return Failure{ErrorCode::kInvalidArgument, "payload of " + std::to_string(job.payload.bytes.size()) +
                                                    " bytes: a message carries at most 4 GiB"};
  }
  job.header.payload_bytes = job.payload.bytes.size();
  {
    std::scoped_lock lock(mutex_);
    if (closed_) return Failure{ErrorCode::kCancelled, "the transport is ending"};
    if (pending_.load(std::memory_order_relaxed) >= capacity_) {
      return Failure{ErrorCode::kResourceExhausted,
                     "transport.send_queue: " + std::to_string(capacity_) + " sends are waiting already"};
    }
    pending_.fetch_add(1, std::memory_order_relaxed);
    commands_.push_back(Submission{std::move(job), SendReport::Clock::now()});
  }
  wake_();
  return Done{};
}

void SendInbox::abandon(const std::string& peer, LeaseKey key) {
  {
    std::scoped_lock lock(mutex_);
    if (closed_) return;
    commands_.push_back(Abandonment{peer, key});
  }
  wake_();
}

void SendInbox::close() {
  std::scoped_lock lock(mutex_);
  closed_ = true;
}

std::vector<SendInbox::Command> SendInbox::take() {
  std::scoped_lock lock(mutex_);
  return std::exchange(commands_, {});
}

}  // namespace scd
