// The sender's side of a lease: how many more messages the receiver has slots for. One unit = one message = one slot;
// chunk_done on the control stream gives units back. This is the only place where sending may block.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>

#include "common/base/error.h"

namespace scd {

class SendCredit {
 public:
  explicit SendCredit(size_t units = 0) : units_(units) {}

  // Blocks until a unit is there. DEADLINE_EXCEEDED, or CANCELLED once closed.
  Result<Done> take(std::chrono::steady_clock::time_point deadline);
  bool try_take();
  void give(size_t units);
  void close();  // ends every wait
  size_t units() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t units_;
  bool closed_ = false;
};

}  // namespace scd
