// libcublas, by the CBLAS of the project's packages.
#include <cblas.h>
#include <cublas_v2.h>

#include "tests/cuda_on_cpu/device_memory.h"
#include "tests/cuda_on_cpu/launch.h"

struct EmulatedBlas {
  cudaStream_t stream = nullptr;
};

namespace {

CBLAS_TRANSPOSE of(cublasOperation_t operation) { return operation == CUBLAS_OP_T ? CblasTrans : CblasNoTrans; }
CBLAS_UPLO of(cublasFillMode_t half) { return half == CUBLAS_FILL_MODE_LOWER ? CblasLower : CblasUpper; }

template <class Work>
cublasStatus_t run(cublasHandle_t handle, const Work& work) {
  const auto done = scd::cuda_on_cpu::submit(handle->stream, [work] {
    const scd::cuda_on_cpu::SharedDeviceWork shared;
    work();
    return cudaSuccess;
  });
  return done == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

}  // namespace

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "an argument is not as it should be";
}

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = new EmulatedBlas;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSsyrk_v2(cublasHandle_t handle, cublasFillMode_t half, cublasOperation_t transpose, int n, int k,
                              const float* alpha, const float* a, int a_stride, const float* beta, float* c,
                              int c_stride) {
  if (n < 0 || k < 0 || a_stride < (transpose == CUBLAS_OP_N ? n : k) || c_stride < n)
    return CUBLAS_STATUS_INVALID_VALUE;
  return run(handle, [=, by = *alpha, kept = *beta] {
    cblas_ssyrk(CblasColMajor, of(half), of(transpose), n, k, by, a, a_stride, kept, c, c_stride);
  });
}

cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b,
                              int m, int n, int k, const double* alpha, const double* a, int a_stride, const double* b,
                              int b_stride, const double* beta, double* c, int c_stride) {
  if (a_stride < (transpose_a == CUBLAS_OP_N ? m : k) || b_stride < (transpose_b == CUBLAS_OP_N ? k : n) ||
      c_stride < m) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return run(handle, [=, by = *alpha, kept = *beta] {
    cblas_dgemm(CblasColMajor, of(transpose_a), of(transpose_b), m, n, k, by, a, a_stride, b, b_stride, kept, c,
                c_stride);
  });
}

cublasStatus_t cublasDtrsm_v2(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t half,
                              cublasOperation_t transpose, cublasDiagType_t diagonal, int m, int n, const double* alpha,
                              const double* a, int a_stride, double* b, int b_stride) {
  if (a_stride < (side == CUBLAS_SIDE_LEFT ? m : n) || b_stride < m) return CUBLAS_STATUS_INVALID_VALUE;
  return run(handle, [=, by = *alpha] {
    cblas_dtrsm(CblasColMajor, side == CUBLAS_SIDE_LEFT ? CblasLeft : CblasRight, of(half), of(transpose),
                diagonal == CUBLAS_DIAG_UNIT ? CblasUnit : CblasNonUnit, m, n, by, a, a_stride, b, b_stride);
  });
}
