// libcusolver, by the LAPACK of the project's packages.
#include <cusolverDn.h>
#include <lapacke.h>

#include "tests/cuda_on_cpu/device_memory.h"
#include "tests/cuda_on_cpu/launch.h"

struct EmulatedSolver {
  cudaStream_t stream = nullptr;
};
struct EmulatedParameters {};

namespace {

// What the workspaces must hold at least, so that a caller that ignores what was asked for is found out.
constexpr size_t kDeviceBytes = 1024, kHostBytes = 64;

char of(cublasFillMode_t half) { return half == CUBLAS_FILL_MODE_LOWER ? 'L' : 'U'; }

cusolverStatus_t sizes(int64_t n, int64_t stride, size_t* device_bytes, size_t* host_bytes) {
  *device_bytes = kDeviceBytes;
  *host_bytes = kHostBytes;
  return stride >= n ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_INVALID_VALUE;
}

bool sound(cudaDataType_t type, int64_t n, int64_t stride, size_t device_bytes, size_t host_bytes) {
  return type == CUDA_R_64F && stride >= n && device_bytes >= kDeviceBytes && host_bytes >= kHostBytes;
}

template <class Work>
cusolverStatus_t run(cusolverDnHandle_t handle, int* info, const Work& work) {
  const auto done = scd::cuda_on_cpu::submit(handle->stream, [work, info] {
    const scd::cuda_on_cpu::SharedDeviceWork shared;
    *info = static_cast<int>(work());
    return cudaSuccess;
  });
  return done == cudaSuccess ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_INVALID_VALUE;
}

}  // namespace

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  *handle = new EmulatedSolver;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  delete handle;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* parameters) {
  *parameters = new EmulatedParameters;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t parameters) {
  delete parameters;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnXsyevd_bufferSize(cusolverDnHandle_t, cusolverDnParams_t, cusolverEigMode_t,
                                             cublasFillMode_t, int64_t n, cudaDataType_t, const void*, int64_t stride,
                                             cudaDataType_t, const void*, cudaDataType_t, size_t* device_bytes,
                                             size_t* host_bytes) {
  return sizes(n, stride, device_bytes, host_bytes);
}

cusolverStatus_t cusolverDnXsyevd(cusolverDnHandle_t handle, cusolverDnParams_t, cusolverEigMode_t mode,
                                  cublasFillMode_t half, int64_t n, cudaDataType_t type, void* a, int64_t stride,
                                  cudaDataType_t, void* values, cudaDataType_t, void*, size_t device_bytes, void*,
                                  size_t host_bytes, int* info) {
  if (!sound(type, n, stride, device_bytes, host_bytes)) return CUSOLVER_STATUS_INVALID_VALUE;
  return run(handle, info, [=] {
    return LAPACKE_dsyevd(LAPACK_COL_MAJOR, mode == CUSOLVER_EIG_MODE_VECTOR ? 'V' : 'N', of(half),
                          static_cast<lapack_int>(n), static_cast<double*>(a), static_cast<lapack_int>(stride),
                          static_cast<double*>(values));
  });
}

cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t, cusolverDnParams_t, cublasFillMode_t, int64_t n,
                                             cudaDataType_t, const void*, int64_t stride, cudaDataType_t,
                                             size_t* device_bytes, size_t* host_bytes) {
  return sizes(n, stride, device_bytes, host_bytes);
}

cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t handle, cusolverDnParams_t, cublasFillMode_t half, int64_t n,
                                  cudaDataType_t type, void* a, int64_t stride, cudaDataType_t, void*,
                                  size_t device_bytes, void*, size_t host_bytes, int* info) {
  if (!sound(type, n, stride, device_bytes, host_bytes)) return CUSOLVER_STATUS_INVALID_VALUE;
  return run(handle, info, [=] {
    return LAPACKE_dpotrf(LAPACK_COL_MAJOR, of(half), static_cast<lapack_int>(n), static_cast<double*>(a),
                          static_cast<lapack_int>(stride));
  });
}
