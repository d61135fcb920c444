#include "kernels/cpu_level.h"

#include <algorithm>
#include <atomic>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace scd::kernels {
namespace {

#if defined(__x86_64__) && defined(__linux__)
// Linux gives tile registers only on request (Documentation/arch/x86/xstate.rst).
bool request_amx_tiles() {
  constexpr int kArchRequestXcompPermission = 0x1023;
  constexpr int kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchRequestXcompPermission, kXfeatureTileData) == 0;
}

CpuLevel detect() {
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))) {
    return CpuLevel::kPortable;
  }
  if (!__builtin_cpu_supports("avx512bf16")) return CpuLevel::kAvx512;
  if (!__builtin_cpu_supports("amx-bf16") || !__builtin_cpu_supports("amx-tile") || !request_amx_tiles()) {
    return CpuLevel::kAvx512Bf16;
  }
  return CpuLevel::kAmx;
}
#else
CpuLevel detect() { return CpuLevel::kPortable; }
#endif

// Relaxed everywhere: it guards no other memory.
std::atomic<int> level_limit{static_cast<int>(CpuLevel::kAmx)};

}  // namespace

CpuLevel cpu_level() {
  static const CpuLevel detected = detect();
  return std::min(detected, static_cast<CpuLevel>(level_limit.load(std::memory_order_relaxed)));
}

ScopedCpuLevelLimit::ScopedCpuLevelLimit(CpuLevel limit)
    : previous_(static_cast<CpuLevel>(level_limit.exchange(static_cast<int>(limit), std::memory_order_relaxed))) {}

ScopedCpuLevelLimit::~ScopedCpuLevelLimit() {
  level_limit.store(static_cast<int>(previous_), std::memory_order_relaxed);
}

}  // namespace scd::kernels
