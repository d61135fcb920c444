// A link of given bandwidth: says when a message that begins to cross now has arrived. Messages cross one after the
// other; idle time is not saved up.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace scd {

class LinkShaper {
 public:
  using Clock = std::chrono::steady_clock;

  // gbps: 1e9 bit/s; 0: infinitely fast.
  explicit LinkShaper(double gbps) : nanoseconds_per_byte_(gbps > 0 ? 8.0 / gbps : 0) {}

  bool limited() const { return nanoseconds_per_byte_ > 0; }

  // ready_at: since when the message could have crossed. Counting from there and not from the call keeps the rate
  // exact when the caller wakes up late.
  Clock::time_point carry(Clock::time_point ready_at, size_t bytes) {
    const auto crossing =
        std::chrono::nanoseconds(static_cast<int64_t>(nanoseconds_per_byte_ * static_cast<double>(bytes)));
    busy_until_ = std::max(ready_at, busy_until_) + crossing;
    return busy_until_;
  }
  // The message on the link was given up.
  void stop(Clock::time_point now) { busy_until_ = std::min(busy_until_, now); }

 private:
  double nanoseconds_per_byte_;
  Clock::time_point busy_until_{};
};

}  // namespace scd
