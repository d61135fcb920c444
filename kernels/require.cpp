#include "kernels/require.h"

#include <stdexcept>

namespace scd::kernels {

std::string text_of(DType dtype) { return dtype == DType::kF32 ? "F32" : dtype == DType::kBF16 ? "BF16" : "F16"; }

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

void require_cpu(const ConstMatrix& m, const char* name) {
  require(m.device == Device::kCpu, name, " is not on the CPU and this build has no kernel for its device");
  require(m.rows >= 0 && m.columns >= 0, name, " has a negative shape ", m);
  require(m.rows <= 1 || m.row_stride >= m.columns, name, " ", m, " has a row stride shorter than a row");
  require(m.data != nullptr || m.rows == 0 || m.columns == 0, name, " ", m, " has no memory");
}

}  // namespace scd::kernels
