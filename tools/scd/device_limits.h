// What the benches put their figures beside: the limits of a device, measured in the same run, and how they time.
#pragma once

#include <functional>
#include <string>

#include "kernels/matrix.h"

namespace scd {

struct DeviceLimits {
  double gemm_flop_per_s = 0.0;
  double memory_byte_per_s = 0.0;  // a GPU's: read and written by a copy; the CPU's: read
  std::string gemm;                // whose product that is: "cuBLASLt, BF16"
};
DeviceLimits measure_limits(kernels::Device device);

// Of one call; the best of the repetitions, each of them long enough for the host's clock.
double best_seconds(kernels::Device device, int repetitions, const std::function<void()>& action);

}  // namespace scd
