// The one pass over the vocabulary that sampling cannot avoid.
#include <algorithm>
#include <limits>

#include "kernels/cpu_kernels.h"
#include "kernels/lanes.h"

namespace scd::kernels::cpu {

double sum_exponentials(std::span<const float> x, float lowest, float largest, float factor) {
  constexpr size_t kRun = 256;  // single-precision partial sums stay this short
  double sum = 0.0;
  for (size_t first = 0; first < x.size(); first += kRun) {
    const size_t count = std::min(kRun, x.size() - first);
    float run[kRun];
    std::copy_n(x.data() + first, count, run);
    std::fill(run + count, run + kRun, -std::numeric_limits<float>::infinity());
    Lanes partial{};
    for (size_t i = 0; i < kRun; i += kLanes) {
      const Lanes value = load(run + i);
      const Lanes weight = exponential((value - largest) * factor);
      partial += value >= broadcast(lowest) ? weight : Lanes{};
    }
    sum += sum_of(partial);
  }
  return sum;
}

}  // namespace scd::kernels::cpu
