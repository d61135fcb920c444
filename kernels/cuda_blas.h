// cuBLAS for what cuBLASLt does not offer: triangles, and double precision. For the calling thread and its queue.
#pragma once

#include <cublas_v2.h>

namespace scd::kernels::cuda {

struct Blas {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSsyrk_v2) ssyrk = nullptr;
  decltype(&cublasDgemm_v2) dgemm = nullptr;
  decltype(&cublasDtrsm_v2) dtrsm = nullptr;
  decltype(&cublasGetStatusString) status = nullptr;
};
const Blas& blas();
cublasHandle_t blas_handle();
// Throws std::runtime_error that names the op and what cuBLAS says.
void check_blas(cublasStatus_t result, const char* what);

}  // namespace scd::kernels::cuda
