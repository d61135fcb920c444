// The part of cuSOLVER that this project uses; matrices are column-major, of doubles.
#pragma once

#include <cublas_types.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#define CUSOLVER_VER_MAJOR 12

enum cusolverStatus_t { CUSOLVER_STATUS_SUCCESS = 0, CUSOLVER_STATUS_INVALID_VALUE = 3 };
enum cusolverEigMode_t { CUSOLVER_EIG_MODE_NOVECTOR = 0, CUSOLVER_EIG_MODE_VECTOR = 1 };
using cusolverDnHandle_t = struct EmulatedSolver*;
using cusolverDnParams_t = struct EmulatedParameters*;

extern "C" {
cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle);
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle);
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream);
cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* parameters);
cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t parameters);
cusolverStatus_t cusolverDnXsyevd_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t parameters,
                                             cusolverEigMode_t mode, cublasFillMode_t half, int64_t n,
                                             cudaDataType_t type, const void* a, int64_t stride,
                                             cudaDataType_t values_type, const void* values, cudaDataType_t compute,
                                             size_t* device_bytes, size_t* host_bytes);
cusolverStatus_t cusolverDnXsyevd(cusolverDnHandle_t handle, cusolverDnParams_t parameters, cusolverEigMode_t mode,
                                  cublasFillMode_t half, int64_t n, cudaDataType_t type, void* a, int64_t stride,
                                  cudaDataType_t values_type, void* values, cudaDataType_t compute, void* device,
                                  size_t device_bytes, void* host, size_t host_bytes, int* info);
cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t parameters,
                                             cublasFillMode_t half, int64_t n, cudaDataType_t type, const void* a,
                                             int64_t stride, cudaDataType_t compute, size_t* device_bytes,
                                             size_t* host_bytes);
cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t handle, cusolverDnParams_t parameters, cublasFillMode_t half,
                                  int64_t n, cudaDataType_t type, void* a, int64_t stride, cudaDataType_t compute,
                                  void* device, size_t device_bytes, void* host, size_t host_bytes, int* info);
}
