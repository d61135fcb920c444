#include "kernels/sgemm.h"

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>

namespace scd::kernels::cpu {

#ifdef SCD_REFERENCE_GEMM
void sgemm(const GemmArgs& args) { sgemm_reference(args); }
#else
void sgemm(const GemmArgs& args) {
  const int64_t m = args.c.rows;
  const int64_t n = args.c.columns;
  const int64_t k = args.transpose_a ? args.a.rows : args.a.columns;
  const auto stride = [](const ConstMatrix& matrix) { return std::max(matrix.row_stride, matrix.columns); };
  const auto status =
      dnnl_sgemm(args.transpose_a ? 'T' : 'N', args.transpose_b ? 'T' : 'N', m, n, k, 1.0f, args.a.row<float>(0),
                 stride(args.a), args.b.row<float>(0), stride(args.b), args.beta, args.c.row<float>(0), stride(args.c));
  if (status != dnnl_success) throw std::runtime_error("oneDNN failed in sgemm");
}
#endif

}  // namespace scd::kernels::cpu
