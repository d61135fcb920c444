#include "kernels/limits.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "kernels/require.h"
#include "kernels/scratch.h"
#include "kernels/sgemm.h"

namespace scd::kernels {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class ThreadCount {
 public:
  explicit ThreadCount(int threads) : previous_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadCount() { omp_set_num_threads(previous_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int previous_;
};

uint64_t read_words(const uint64_t* words, size_t count) {
  constexpr size_t kChains = 32;
  uint64_t sums[kChains] = {};
  for (size_t i = 0; i + kChains <= count; i += kChains) {
    for (size_t chain = 0; chain < kChains; ++chain) sums[chain] += words[i + chain];
  }
  uint64_t sum = 0;
  for (uint64_t value : sums) sum += value;
  return sum;
}

}  // namespace

double measure_cpu_gemm_rate(std::span<const GemmShape> shapes, int threads, int repetitions) {
  require(!shapes.empty() && threads > 0 && repetitions > 0, "measure_cpu_gemm_rate: nothing to measure");
  const ThreadCount thread_count(threads);
  std::vector<std::function<void()>> gemms;
  double flops = 0.0;
  for (const GemmShape& shape : shapes) {
    gemms.push_back(cpu::peak_gemm(shape));
    flops += shape.flops();
  }
  double best = 0.0;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    const Clock::time_point start = Clock::now();
    for (const std::function<void()>& gemm : gemms) gemm();
    if (repetition > 0) best = std::max(best, flops / seconds_since(start));  // the first warms up
  }
  return best;
}

std::string cpu_gemm_name() { return cpu::peak_gemm_name(); }

double measure_read_bandwidth(size_t bytes, int threads, int repetitions) {
  require(bytes >= 4096 && threads > 0 && repetitions > 0, "measure_read_bandwidth: nothing to measure");
  const cpu::AlignedBuffer buffer(bytes);
  const auto* words = reinterpret_cast<const uint64_t*>(buffer.data());
  const size_t count = bytes / sizeof(uint64_t);
  uint64_t sum = 0;
  double best = 0.0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    const Clock::time_point start = Clock::now();
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : sum)
    for (int thread = 0; thread < threads; ++thread) {
      const size_t first = count * static_cast<size_t>(thread) / static_cast<size_t>(threads);
      const size_t last = count * (static_cast<size_t>(thread) + 1) / static_cast<size_t>(threads);
      sum += read_words(words + first, last - first);
    }
    best = std::max(best, static_cast<double>(bytes) / seconds_since(start));
  }
  volatile uint64_t keep = sum;  // else the reads could be left out
  static_cast<void>(keep);
  return best;
}

int kernel_threads() { return omp_get_max_threads(); }

}  // namespace scd::kernels
