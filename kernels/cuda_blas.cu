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
    library.resolve("cublasDestroy_v2", made.destroy);
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

namespace {

// Tens of megabytes of the GPU's memory go with it.
struct Handle {
  cublasHandle_t handle = nullptr;
  Handle() {
    const cudaStream_t queue = stream();  // outlives it
    check_blas(blas().create(&handle), "cublasCreate");
    check_blas(blas().set_stream(handle, queue), "cublasSetStream");
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { blas().destroy(handle); }
};

}  // namespace

cublasHandle_t blas_handle() {
  thread_local const Handle made;
  return made.handle;
}

}  // namespace scd::kernels::cuda
