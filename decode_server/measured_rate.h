// How fast something goes, as far as it was measured.
#pragma once

namespace scd {

// A sum of amounts over a sum of seconds, in which a new measurement weighs a fifth.
class MeasuredRate {
 public:
  // Nothing or no time says nothing.
  void observe(double amount, double seconds);
  bool measured() const { return seconds_ > 0; }
  double per_second() const { return amount_ / seconds_; }
  double seconds_each() const { return seconds_ / amount_; }

 private:
  double amount_ = 0;
  double seconds_ = 0;
};

}  // namespace scd
