#include "decode_server/measured_rate.h"

namespace scd {
namespace {

constexpr double kWeight = 0.2;  // of a new measurement

}  // namespace

void MeasuredRate::observe(double amount, double seconds) {
  if (!(amount > 0) || !(seconds > 0)) return;
  const double weight = measured() ? kWeight : 1;
  amount_ += weight * (amount - amount_);
  seconds_ += weight * (seconds - seconds_);
}

}  // namespace scd
