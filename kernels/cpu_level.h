// What the CPU offers beyond the build's baseline, found once at run time.
#pragma once

namespace scd::kernels {

// Each level includes the ones before it.
enum class CpuLevel : int { kPortable = 0, kAvx512 = 1, kAvx512Bf16 = 2, kAmx = 3 };

// The level kernels may use now. kAmx also means that the kernel has granted this process the tile registers.
CpuLevel cpu_level();

// Tests run every path on one machine: kernels chosen while it lives use at most `limit`. Weights packed before keep
// their layout, so pack them inside. Not for concurrent use.
class ScopedCpuLevelLimit {
 public:
  explicit ScopedCpuLevelLimit(CpuLevel limit);
  ~ScopedCpuLevelLimit();
  ScopedCpuLevelLimit(const ScopedCpuLevelLimit&) = delete;
  ScopedCpuLevelLimit& operator=(const ScopedCpuLevelLimit&) = delete;

 private:
  CpuLevel previous_;
};

}  // namespace scd::kernels
