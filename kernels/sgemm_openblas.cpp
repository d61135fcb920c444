#include <cblas.h>

#include <algorithm>

#include "kernels/sgemm.h"

namespace scd::kernels::cpu {

void sgemm(const GemmArgs& args) {
  const auto size = [](int64_t value) { return static_cast<blasint>(value); };
  const auto operation = [](bool transposed) { return transposed ? CblasTrans : CblasNoTrans; };
  const auto stride = [&](const ConstMatrix& matrix) {
    return size(std::max({matrix.row_stride, matrix.columns, int64_t{1}}));
  };
  cblas_sgemm(CblasRowMajor, operation(args.transpose_a), operation(args.transpose_b), size(args.c.rows),
              size(args.c.columns), size(args.transpose_a ? args.a.rows : args.a.columns), 1.0f, args.a.row<float>(0),
              stride(args.a), args.b.row<float>(0), stride(args.b), args.beta, args.c.row<float>(0), stride(args.c));
}

std::string peak_gemm_name() { return "OpenBLAS, FP32"; }

}  // namespace scd::kernels::cpu
