#include "tools/scd/precision.h"

#include "common/base/error.h"
#include "kernels/linear.h"

namespace scd {

kernels::DType parse_precision(const std::string& text, kernels::Device device) {
  if (text == "fp32") return kernels::DType::kF32;
  if (text == "bf16") return kernels::DType::kBF16;
  if (text == "auto") return kernels::native_precision(device);
  throw Error(ErrorCode::kInvalidArgument, "--precision: `" + text + "`: expected fp32, bf16 or auto");
}

kernels::DType parse_float_dtype(const std::string& option, const std::string& text) {
  if (text == "fp32") return kernels::DType::kF32;
  if (text == "bf16") return kernels::DType::kBF16;
  if (text == "fp16") return kernels::DType::kF16;
  throw Error(ErrorCode::kInvalidArgument, option + ": `" + text + "`: expected fp32, bf16 or fp16");
}

}  // namespace scd
