#include "kernels/require.h"

#include <stdexcept>

namespace scd::kernels {

std::string text_of(DType dtype) { return dtype == DType::kF32 ? "F32" : dtype == DType::kBF16 ? "BF16" : "F16"; }

std::string text_of(Device device) { return device == Device::kCpu ? "the CPU" : "CUDA"; }

std::string text_of(const ConstMatrix& m) {
  std::string text;
  text.append("[").append(std::to_string(m.rows)).append(", ").append(std::to_string(m.columns)).append("] ");
  return text.append(text_of(m.dtype));
}

void throw_invalid_argument(std::initializer_list<std::string> parts) {
  std::string sentence;
  for (const std::string& part : parts) sentence.append(part);
  throw std::invalid_argument(sentence);
}

void require_device_in_build([[maybe_unused]] Device device) {
#ifndef SCD_CUDA
  require(device == Device::kCpu, "this build has no CUDA kernels");
#endif
}

void require_matrix(const ConstMatrix& m, const char* name) {
  require_device_in_build(m.device);
  require(m.rows >= 0 && m.columns >= 0, name, " has a negative shape ", m);
  require(m.rows <= 1 || m.row_stride >= m.columns, name, " ", m, " has a row stride shorter than a row");
  require(m.data != nullptr || m.rows == 0 || m.columns == 0, name, " ", m, " has no memory");
}

void require_on(Device device, const ConstMatrix& m, const char* name) {
  require(m.device == device, name, " is on ", m.device, " and must be on ", device);
  require_matrix(m, name);
}

}  // namespace scd::kernels
