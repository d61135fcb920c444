// Moving average of what sends to one peer reach, over the time in which the wire was busy with them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace scd {

class BandwidthMeter {
 public:
  using Clock = std::chrono::steady_clock;

  void sent(size_t bytes, Clock::time_point started_at, Clock::time_point finished_at) {
    busy_ += finished_at - std::max(started_at, last_finished_);
    last_finished_ = finished_at;
    bytes_ += bytes;
    // Small sends end when they are buffered, and several may end at once: only together do they say something.
    if ((busy_ < kSampleTime && bytes_ < kSampleBytes) || busy_ <= Clock::duration::zero()) return;
    const double sample = static_cast<double>(bytes_) * 8 / std::chrono::duration<double, std::nano>(busy_).count();
    gbps_ = gbps_ == 0 ? sample : gbps_ + kWeight * (sample - gbps_);
    bytes_ = 0;
    busy_ = {};
  }

  double gbps() const { return gbps_; }  // 0 until measured

 private:
  static constexpr std::chrono::milliseconds kSampleTime{2};
  static constexpr size_t kSampleBytes = size_t{4} << 20;
  static constexpr double kWeight = 0.2;

  double gbps_ = 0;
  size_t bytes_ = 0;
  Clock::duration busy_{};
  Clock::time_point last_finished_{};
};

}  // namespace scd
