#include "common/device/open_device.h"

#include <charconv>
#include <cstdlib>
#include <stdexcept>

#include "common/base/error.h"
#include "kernels/device.h"

namespace scd {

kernels::Device open_device(const std::string& name) {
  constexpr std::string_view kCuda = "cuda";
  if (name == "cpu") return kernels::Device::kCpu;
  int ordinal = 0;
  const std::string number = name == kCuda ? "0" : name.starts_with("cuda:") ? name.substr(kCuda.size() + 1) : "";
  const auto [end, failed] = std::from_chars(number.data(), number.data() + number.size(), ordinal);
  if (number.empty() || failed != std::errc() || end != number.data() + number.size() || ordinal < 0) {
    throw Error(ErrorCode::kInvalidArgument, "device `" + name + "`: expected cpu, cuda or cuda:N");
  }
  // Of streams that share a connection to the GPU each waits for the others' work: there are those of the threads, and
  // of the codec beside them. Read when the process first speaks to the GPU.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/0);
  try {
    kernels::use_gpu_device(ordinal);
  } catch (const std::runtime_error& error) {
    throw Error(ErrorCode::kFailedPrecondition, error.what());
  }
  return kernels::Device::kGpu;
}

}  // namespace scd
