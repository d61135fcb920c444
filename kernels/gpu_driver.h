// What the NVIDIA driver of this machine says of itself and of its GPUs: its version, and clocks through NVML
// (libnvidia-ml.so.1, which comes with the driver and is opened when asked). Needs no CUDA to build. Nothing here
// fails: what cannot be read is left out, and the reason stands beside it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace scd::kernels {

// The version in the text of /proc/driver/nvidia/version, as "580.159.04"; empty where there is none.
std::string driver_version_in(const std::string& text);
// Of the driver that is installed here; empty where none is.
std::string installed_driver_version();

struct GpuClocks {
  std::optional<int> sm_mhz = {}, sm_max_mhz = {}, memory_mhz = {}, memory_max_mhz = {};
  std::string problem = {};  // why some of them are not there; empty: all are
};

// NVML, open as long as this lives.
class Nvml {
 public:
  explicit Nvml(const std::string& library = "libnvidia-ml.so.1");
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;
  ~Nvml();

  const std::string& problem() const { return problem_; }  // why it cannot be used; empty: it can
  // Now, of the GPU on the bus at "00000000:1b:00.0".
  GpuClocks clocks(const std::string& pci_bus_id) const;

 private:
  void* library_ = nullptr;
  std::string problem_;
};

// The clocks of the GPU of this process, the present ones read while it multiplies BF16 matrices of so many rows and
// columns, which it has done for a fifth of a second before: what a run left it at, heat and power limit included.
GpuClocks clocks_under_load(const Nvml& nvml, int64_t edge = 4096);

}  // namespace scd::kernels
