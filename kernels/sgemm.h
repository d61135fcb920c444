// The single-precision matrix product under the others, of the library that SCD_SGEMM names when the build is
// configured: oneDNN, OpenBLAS, or plain loops (oneDNN generates code at run time, which ThreadSanitizer cannot
// follow).
#pragma once

#include <functional>
#include <string>

#include "kernels/limits.h"
#include "kernels/linear.h"

namespace scd::kernels::cpu {

// c = op(a) op(b) + beta c; F32 throughout.
void sgemm(const GemmArgs& args);
void sgemm_reference(const GemmArgs& args);

// The library's fastest product of a shape, with matrices of its own, to be timed: oneDNN's in BF16 where the CPU has
// it, sgemm otherwise.
std::function<void()> peak_gemm(const GemmShape& shape);
std::string peak_gemm_name();

}  // namespace scd::kernels::cpu
