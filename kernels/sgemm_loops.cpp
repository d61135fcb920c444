#include "kernels/sgemm.h"

namespace scd::kernels::cpu {

void sgemm(const GemmArgs& args) { sgemm_reference(args); }

std::string peak_gemm_name() { return "plain loops, FP32"; }

}  // namespace scd::kernels::cpu
