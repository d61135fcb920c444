// The part of cuBLAS that this project uses; matrices are column-major.
#pragma once

#include <cublas_types.h>
#include <cuda_runtime.h>

using cublasHandle_t = struct EmulatedBlas*;

extern "C" {
const char* cublasGetStatusString(cublasStatus_t status);
cublasStatus_t cublasCreate_v2(cublasHandle_t* handle);
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle);
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasSsyrk_v2(cublasHandle_t handle, cublasFillMode_t half, cublasOperation_t transpose, int n, int k,
                              const float* alpha, const float* a, int a_stride, const float* beta, float* c,
                              int c_stride);
cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b,
                              int m, int n, int k, const double* alpha, const double* a, int a_stride, const double* b,
                              int b_stride, const double* beta, double* c, int c_stride);
cublasStatus_t cublasDtrsm_v2(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t half,
                              cublasOperation_t transpose, cublasDiagType_t diagonal, int m, int n, const double* alpha,
                              const double* a, int a_stride, double* b, int b_stride);
}
