#include "common/transport/credit.h"

namespace scd {

Result<Done> SendCredit::take(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  const bool changed = changed_.wait_until(lock, deadline, [&] { return closed_ || units_ > 0; });
  if (closed_) return Failure{ErrorCode::kCancelled, "waiting for transfer credit: the transfer was ended"};
  if (!changed) {
    return Failure{ErrorCode::kDeadlineExceeded, "waiting for transfer credit: the receiver gave none in time"};
  }
  --units_;
  return Done{};
}

bool SendCredit::try_take() {
  std::scoped_lock lock(mutex_);
  if (closed_ || units_ == 0) return false;
  --units_;
  return true;
}

void SendCredit::give(size_t units) {
  {
    std::scoped_lock lock(mutex_);
    units_ += units;
  }
  changed_.notify_all();
}

void SendCredit::close() {
  {
    std::scoped_lock lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

size_t SendCredit::units() const {
  std::scoped_lock lock(mutex_);
  return units_;
}

}  // namespace scd
