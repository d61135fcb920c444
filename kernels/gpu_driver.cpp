#include "kernels/gpu_driver.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>

#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace scd::kernels {
namespace {

// Of NVML's interface, which keeps these numbers and names in all versions.
using NvmlDevice = void*;
constexpr int kSuccess = 0;
constexpr int kSmClock = 1;
constexpr int kMemoryClock = 2;

template <class F>
F function_in(void* library, const char* name) {
  return library == nullptr ? nullptr : reinterpret_cast<F>(dlsym(library, name));
}

std::string failure(const char* what, int code, void* library) {
  const auto text_of = function_in<const char* (*)(int)>(library, "nvmlErrorString");
  return std::string(what) + ": " + (text_of != nullptr ? text_of(code) : "NVML error " + std::to_string(code));
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Calls `read` while the GPU works.
GpuClocks under_load(int64_t edge, const std::function<GpuClocks()>& read) {
  constexpr double kHeated = 0.2, kAhead = 0.02;  // seconds of work: done before, queued when reading
  constexpr auto kDevice = Device::kGpu;
  const size_t bytes = static_cast<size_t>(edge * edge) * size_of(DType::kBF16);
  const DeviceBuffer weight_memory(kDevice, bytes), x_memory(kDevice, bytes), y_memory(kDevice, bytes);
  const auto matrix = [&](const DeviceBuffer& memory) {
    return Matrix{memory.data(), edge, edge, edge, DType::kBF16, kDevice};
  };
  fill_normal(matrix(weight_memory), 1, 1.0f);
  fill_normal(matrix(x_memory), 2, 1.0f);
  const PackedLinear linear(matrix(weight_memory), {}, DType::kBF16, kDevice);
  const auto multiply = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) linear.forward(matrix(x_memory), matrix(y_memory));
  };
  multiply(1);
  synchronize(kDevice);
  const auto begin = std::chrono::steady_clock::now();
  multiply(1);
  synchronize(kDevice);
  const auto count = 1 + std::min<int64_t>(500, static_cast<int64_t>(kAhead / seconds_since(begin)));
  while (seconds_since(begin) < kHeated) {
    multiply(count);
    synchronize(kDevice);
  }
  multiply(count);
  const GpuClocks clocks = read();
  synchronize(kDevice);
  return clocks;
}

}  // namespace

std::string driver_version_in(const std::string& text) {
  // NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue ...
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("NVRM version:")) continue;
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      const bool numbers = word.find_first_not_of("0123456789.") == std::string::npos;
      if (numbers && word.find('.') != std::string::npos && word.front() != '.' && word.back() != '.') return word;
    }
  }
  return {};
}

std::string installed_driver_version() {
  std::ifstream in("/proc/driver/nvidia/version");
  return driver_version_in({std::istreambuf_iterator<char>(in), {}});
}

Nvml::Nvml(const std::string& library) {
  library_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) {
    problem_ = library + " cannot be opened: " + dlerror();
    return;
  }
  const auto init = function_in<int (*)()>(library_, "nvmlInit_v2");
  const int result = init == nullptr ? kSuccess : init();
  if (init == nullptr) problem_ = library + " has no nvmlInit_v2";
  if (result != kSuccess) problem_ = failure("nvmlInit_v2", result, library_);
}

Nvml::~Nvml() {
  if (library_ == nullptr) return;
  const auto shutdown = function_in<int (*)()>(library_, "nvmlShutdown");
  if (problem_.empty() && shutdown != nullptr) shutdown();
  dlclose(library_);
}

GpuClocks Nvml::clocks(const std::string& pci_bus_id) const {
  GpuClocks clocks;
  clocks.problem = problem_;
  if (!problem_.empty()) return clocks;
  const auto device_at = function_in<int (*)(const char*, NvmlDevice*)>(library_, "nvmlDeviceGetHandleByPciBusId_v2");
  NvmlDevice device = nullptr;
  const int found = device_at == nullptr ? kSuccess : device_at(pci_bus_id.c_str(), &device);
  if (device_at == nullptr || found != kSuccess) {
    clocks.problem = device_at == nullptr ? "NVML has no nvmlDeviceGetHandleByPciBusId_v2"
                                          : failure(("the GPU at " + pci_bus_id).c_str(), found, library_);
    return clocks;
  }
  const auto read = [&](const char* name, int clock, std::optional<int>& mhz) {
    const auto get = function_in<int (*)(NvmlDevice, int, unsigned*)>(library_, name);
    unsigned value = 0;
    const int result = get == nullptr ? kSuccess : get(device, clock, &value);
    if (get != nullptr && result == kSuccess) {
      mhz = static_cast<int>(value);
    } else if (clocks.problem.empty()) {
      clocks.problem = get == nullptr ? std::string("NVML has no ") + name : failure(name, result, library_);
    }
  };
  read("nvmlDeviceGetClockInfo", kSmClock, clocks.sm_mhz);
  read("nvmlDeviceGetMaxClockInfo", kSmClock, clocks.sm_max_mhz);
  read("nvmlDeviceGetClockInfo", kMemoryClock, clocks.memory_mhz);
  read("nvmlDeviceGetMaxClockInfo", kMemoryClock, clocks.memory_max_mhz);
  return clocks;
}

GpuClocks clocks_under_load(const Nvml& nvml, int64_t edge) {
  const GpuDevice& gpu = gpu_device();
  GpuClocks idle = nvml.clocks(gpu.pci_bus_id);
  if (!idle.sm_mhz && !idle.memory_mhz) return idle;
  try {
    return under_load(edge, [&] { return nvml.clocks(gpu.pci_bus_id); });
  } catch (const std::exception& error) {  // no memory left, no cuBLASLt
    idle.sm_mhz.reset();
    idle.memory_mhz.reset();
    idle.problem = std::string("the GPU could not be kept busy: ") + error.what();
    return idle;
  }
}

}  // namespace scd::kernels
