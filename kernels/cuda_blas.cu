#include "kernels/cuda_blas.h"

#include <stdexcept>
#include <string>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_library.h"

namespace scd::kernels::cuda {

const Blas& blas() {
  static const Blas functions = [] {
    const CudaLibrary library("cublas", CUBLAS_VER_MAJOR);
    Blas made;
    library.resolve("cublasCreate_v2", made.create);
    library.resolve("cublasSetStream_v2", made.set_stream);
    library.resolve("cublasSsyrk_v2", made.ssyrk);
    library.resolve("cublasDgemm_v2", made.dgemm);
    library.resolve("cublasDtrsm_v2", made.dtrsm);
    library.resolve("cublasGetStatusString", made.status);
    return made;
  }();
  return functions;
}

void check_blas(cublasStatus_t result, const char* what) {
  if (result == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string("cuBLAS, ") + what + ": " + blas().status(result));
}

cublasHandle_t blas_handle() {
  // Left to the process's end, when the GPU may be gone already.
  thread_local cublasHandle_t handle = [] {
    cublasHandle_t made = nullptr;
    const cudaStream_t queue = stream();
    check_blas(blas().create(&made), "cublasCreate");
    check_blas(blas().set_stream(made, queue), "cublasSetStream");
    return made;
  }();
  return handle;
}

}  // namespace scd::kernels::cuda
