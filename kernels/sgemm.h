// The single-precision matrix product under the others: oneDNN's, or plain loops where SCD_REFERENCE_GEMM is set
// (oneDNN generates code at run time, which ThreadSanitizer cannot follow).
#pragma once

#include "kernels/linear.h"

namespace scd::kernels::cpu {

// c = op(a) op(b) + beta c; F32 throughout.
void sgemm(const GemmArgs& args);
void sgemm_reference(const GemmArgs& args);

}  // namespace scd::kernels::cpu
