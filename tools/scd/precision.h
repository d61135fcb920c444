// The `--precision` option of commands that load a model.
#pragma once

#include <string>

#include "kernels/matrix.h"

namespace scd {

// "fp32", "bf16", or "auto": bf16 where the device multiplies it in hardware. Throws Error naming what is expected.
kernels::DType parse_precision(const std::string& text, kernels::Device device = kernels::Device::kCpu);

// "fp32", "bf16" or "fp16", for the named option.
kernels::DType parse_float_dtype(const std::string& option, const std::string& text);

}  // namespace scd
