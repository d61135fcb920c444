#include "kernels/matrix.h"

#include "kernels/number.h"

namespace scd::kernels {

float to_float(BFloat16 value) { return bf16_to_float(value.bits); }
BFloat16 to_bfloat16(float value) { return {float_to_bf16(value)}; }

}  // namespace scd::kernels
