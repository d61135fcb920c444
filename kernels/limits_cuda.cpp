// The GPU's limits, measured through the ops themselves. Host clocks are precise enough: work is queued for
// milliseconds and waited for once.
#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/limits.h"
#include "kernels/linear.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

constexpr double kShortest = 0.02;  // seconds of work queued for one measurement

Matrix on_cuda(const DeviceBuffer& memory, int64_t rows, int64_t columns) {
  return {memory.data(), rows, columns, columns, DType::kBF16, Device::kGpu};
}

// The best time of one action, each measurement long enough.
template <class Action>
double best_seconds(int repetitions, Action action) {
  const auto timed = [&](int count) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) action();
    synchronize(Device::kGpu);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / count;
  };
  timed(1);  // warm-up
  const int count = 1 + static_cast<int>(kShortest / timed(1));
  double best = timed(count);
  for (int i = 1; i < repetitions; ++i) best = std::min(best, timed(count));
  return best;
}

}  // namespace

double measure_gpu_gemm_rate(std::span<const GemmShape> shapes, int repetitions) {
  require(gpu_device().usable, "the GEMM rate of CUDA: ", gpu_device().reason);
  double seconds = 0.0, flops = 0.0;
  for (const GemmShape& shape : shapes) {
    const auto buffer = [](int64_t rows, int64_t columns) {
      return DeviceBuffer(Device::kGpu, static_cast<size_t>(rows * columns) * size_of(DType::kBF16));
    };
    const DeviceBuffer weight_memory = buffer(shape.n, shape.k), x_memory = buffer(shape.m, shape.k),
                       y_memory = buffer(shape.m, shape.n);
    const Matrix weight = on_cuda(weight_memory, shape.n, shape.k), x = on_cuda(x_memory, shape.m, shape.k);
    fill_normal(weight, 1, 1.0f);
    fill_normal(x, 2, 1.0f);
    const PackedLinear linear(weight, {}, DType::kBF16, Device::kGpu);
    const Matrix y = on_cuda(y_memory, shape.m, shape.n);
    seconds += best_seconds(repetitions, [&] { linear.forward(x, y); });
    flops += shape.flops();
  }
  return flops / seconds;
}

double measure_gpu_copy_bandwidth(size_t bytes, int repetitions) {
  require(gpu_device().usable, "the copy bandwidth of CUDA: ", gpu_device().reason);
  constexpr int64_t kColumns = 4096;
  const auto rows = static_cast<int64_t>(bytes / size_of(DType::kBF16)) / kColumns + 1;
  const size_t size = static_cast<size_t>(rows * kColumns) * size_of(DType::kBF16);
  const DeviceBuffer from_memory(Device::kGpu, size), to_memory(Device::kGpu, size);
  const Matrix from = on_cuda(from_memory, rows, kColumns), to = on_cuda(to_memory, rows, kColumns);
  fill_normal(from, 3, 1.0f);
  return 2.0 * static_cast<double>(size) / best_seconds(repetitions, [&] { copy(from, to); });
}

double measure_gpu_bus_bandwidth(BusDirection direction, size_t bytes, int repetitions) {
  require(gpu_device().usable, "the bandwidth of the GPU's bus: ", gpu_device().reason);
  constexpr int64_t kColumns = 4096;
  const auto rows = static_cast<int64_t>(bytes / size_of(DType::kBF16)) / kColumns + 1;
  const size_t size = static_cast<size_t>(rows * kColumns) * size_of(DType::kBF16);
  const DeviceBuffer memory(Device::kGpu, size);
  HostStaging staging;
  const Matrix there = on_cuda(memory, rows, kColumns), here = staging.matrix(rows, kColumns, DType::kBF16);
  fill_normal(there, 3, 1.0f);
  copy(there, here);
  const auto action = [&] { direction == BusDirection::kToGpu ? copy(here, there) : copy(there, here); };
  return static_cast<double>(size) / best_seconds(repetitions, action);
}

}  // namespace scd::kernels
