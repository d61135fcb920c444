#include "tools/scd/device_limits.h"

#include <algorithm>
#include <chrono>
#include <span>

#include "kernels/device.h"
#include "kernels/limits.h"

namespace scd {

DeviceLimits measure_limits(kernels::Device device) {
  const bool on_gpu = device == kernels::Device::kGpu;
  const int64_t side = on_gpu ? 8192 : 1024;
  const kernels::GemmShape peak{side, side, side};
  if (on_gpu) {
    return {kernels::measure_gpu_gemm_rate({&peak, 1}), kernels::measure_gpu_copy_bandwidth(size_t{4} << 30),
            "cuBLASLt, BF16"};
  }
  const int threads = kernels::kernel_threads();
  return {kernels::measure_cpu_gemm_rate({&peak, 1}, threads),
          kernels::measure_read_bandwidth(size_t{1} << 28, threads), kernels::cpu_gemm_name()};
}

double best_seconds(kernels::Device device, int repetitions, const std::function<void()>& action) {
  constexpr double kShortest = 0.02;
  const auto timed = [&](int64_t count) {
    kernels::synchronize(device);
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < count; ++i) action();
    kernels::synchronize(device);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / static_cast<double>(count);
  };
  timed(2);  // warm-up
  const auto count = 1 + static_cast<int64_t>(kShortest / timed(1));
  double best = timed(count);
  for (int i = 1; i < repetitions; ++i) best = std::min(best, timed(count));
  return best;
}

}  // namespace scd
