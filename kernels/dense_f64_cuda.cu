// cuBLAS and cuSOLVER over copies of the host's matrices. A thread keeps what memory its calls took for those that
// follow, up to 2 GiB: giving it back waits for all that the GPU does, also for other threads.
#include "kernels/dense_f64.h"

#include <cusolverDn.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda_blas.h"
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/cuda_library.h"
#include "kernels/kept.h"

namespace scd::kernels::cuda {
namespace {

struct Solver {
  decltype(&cusolverDnCreate) create = nullptr;
  decltype(&cusolverDnDestroy) destroy = nullptr;
  decltype(&cusolverDnSetStream) set_stream = nullptr;
  decltype(&cusolverDnCreateParams) create_parameters = nullptr;
  decltype(&cusolverDnDestroyParams) destroy_parameters = nullptr;
  decltype(&cusolverDnXsyevd_bufferSize) eigen_memory = nullptr;
  decltype(&cusolverDnXsyevd) eigen = nullptr;
  decltype(&cusolverDnXpotrf_bufferSize) cholesky_memory = nullptr;
  decltype(&cusolverDnXpotrf) cholesky = nullptr;
};

const Solver& solver() {
  static const Solver functions = [] {
    const CudaLibrary library("cusolver", CUSOLVER_VER_MAJOR);
    Solver made;
    library.resolve("cusolverDnCreate", made.create);
    library.resolve("cusolverDnDestroy", made.destroy);
    library.resolve("cusolverDnSetStream", made.set_stream);
    library.resolve("cusolverDnCreateParams", made.create_parameters);
    library.resolve("cusolverDnDestroyParams", made.destroy_parameters);
    library.resolve("cusolverDnXsyevd_bufferSize", made.eigen_memory);
    library.resolve("cusolverDnXsyevd", made.eigen);
    library.resolve("cusolverDnXpotrf_bufferSize", made.cholesky_memory);
    library.resolve("cusolverDnXpotrf", made.cholesky);
    return made;
  }();
  return functions;
}

void check_solver(cusolverStatus_t result, const char* what) {
  if (result == CUSOLVER_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string("cuSOLVER, ") + what + ": status " + std::to_string(result));
}

struct SolverHandle {
  cusolverDnHandle_t handle = nullptr;
  cusolverDnParams_t parameters = nullptr;
  SolverHandle() {
    const cudaStream_t queue = stream();  // outlives it
    check_solver(solver().create(&handle), "cusolverDnCreate");
    check_solver(solver().set_stream(handle, queue), "cusolverDnSetStream");
    check_solver(solver().create_parameters(&parameters), "cusolverDnCreateParams");
  }
  SolverHandle(const SolverHandle&) = delete;
  SolverHandle& operator=(const SolverHandle&) = delete;
  ~SolverHandle() {
    solver().destroy_parameters(parameters);
    solver().destroy(handle);
  }
};

const SolverHandle& solver_handle() {
  thread_local const SolverHandle made;
  return made;
}

// Memory of the GPU for the length of a call.
class CallMemory {
 public:
  explicit CallMemory(size_t bytes) : memory_(taken(bytes)) {}
  CallMemory(CallMemory&& other) noexcept = default;
  CallMemory& operator=(CallMemory&&) = delete;
  ~CallMemory() {
    const size_t bytes = memory_.size();
    if (bytes > 0) idle().keep(std::move(memory_), bytes, bytes);
  }
  std::byte* data() const { return memory_.data(); }
  DeviceBuffer take() { return std::move(memory_); }

 private:
  static Kept<DeviceBuffer>& idle() {
    constexpr size_t kMostBytes = size_t{2} << 30;  // four square matrices of 8192
    stream();                                       // outlives it
    thread_local Kept<DeviceBuffer> buffers(kMostBytes);
    return buffers;
  }
  // Idle memory makes room where there is none.
  static DeviceBuffer taken(size_t bytes) {
    if (auto found = idle().take(bytes)) return std::move(found->one);
    try {
      return {Device::kGpu, bytes};
    } catch (const OutOfDeviceMemory&) {
      idle().clear();
      return {Device::kGpu, bytes};
    }
  }

  DeviceBuffer memory_;
};

// Columns of doubles on the GPU, dense.
class There {
 public:
  There(int64_t rows, int64_t columns)
      : memory_(static_cast<size_t>(rows * columns) * sizeof(double)), rows_(rows), columns_(columns) {}
  explicit There(const ConstColumnsF64& from) : There(from.rows, from.columns) {
    cuda::copy({from.data, columns_, 2 * rows_, 2 * from.stride}, words());
  }
  void bring_back(const ColumnsF64& to) const { cuda::copy(words(), {to.data, columns_, 2 * rows_, 2 * to.stride}); }
  double* data() const { return reinterpret_cast<double*>(memory_.data()); }
  int stride() const { return static_cast<int>(rows_); }
  DeviceBuffer take() { return memory_.take(); }

 private:
  // Two a double: what copy() moves.
  Matrix words() const { return {memory_.data(), columns_, 2 * rows_, 2 * rows_, DType::kF32, Device::kGpu}; }
  CallMemory memory_;
  int64_t rows_;
  int64_t columns_;
};

// What an op of cuSOLVER works in.
struct Workspace {
  Workspace(size_t device_bytes, size_t host_bytes) : device(device_bytes), host(host_bytes) {}
  CallMemory device;
  std::vector<std::byte> host;
};

// What cuSOLVER says of the numbers: 0 where all is well.
class Info {
 public:
  Info() : memory_(sizeof(int)) {}
  int* data() const { return reinterpret_cast<int*>(memory_.data()); }
  int read() const {
    int value = 0;
    check(cudaMemcpyAsync(&value, data(), sizeof(int), cudaMemcpyDeviceToHost, stream()), "cuSOLVER's result");
    synchronize();
    return value;
  }

 private:
  CallMemory memory_;
};

}  // namespace

void multiply_f64(const ProductF64& args) {
  const There a(args.a), c(args.c.rows, args.c.columns);
  const bool with_itself = args.a.data == args.b.data && args.a.rows == args.b.rows && args.a.columns == args.b.columns;
  const std::optional<There> other = with_itself ? std::nullopt : std::optional<There>(std::in_place, args.b);
  const There& b = other ? *other : a;
  const double one = 1.0, zero = 0.0;
  const auto operation = [](bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  check_blas(blas().dgemm(blas_handle(), operation(args.transpose_a), operation(args.transpose_b),
                          static_cast<int>(args.c.rows), static_cast<int>(args.c.columns),
                          static_cast<int>(args.transpose_a ? args.a.rows : args.a.columns), &one, a.data(), a.stride(),
                          b.data(), b.stride(), &zero, c.data(), c.stride()),
             "a product of doubles");
  c.bring_back(args.c);
}

bool eigen_f64(ColumnsF64 symmetric, double* values) {
  const auto& [handle, parameters] = solver_handle();
  const There vectors{ConstColumnsF64(symmetric)}, there(symmetric.rows, 1);
  const Info info;
  size_t device_bytes = 0, host_bytes = 0;
  check_solver(solver().eigen_memory(handle, parameters, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER,
                                     symmetric.rows, CUDA_R_64F, vectors.data(), vectors.stride(), CUDA_R_64F,
                                     there.data(), CUDA_R_64F, &device_bytes, &host_bytes),
               "memory of eigenvectors");
  Workspace work(device_bytes, host_bytes);
  check_solver(solver().eigen(handle, parameters, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, symmetric.rows,
                              CUDA_R_64F, vectors.data(), vectors.stride(), CUDA_R_64F, there.data(), CUDA_R_64F,
                              work.device.data(), device_bytes, work.host.data(), host_bytes, info.data()),
               "eigenvectors");
  if (info.read() != 0) return false;
  vectors.bring_back(symmetric);
  there.bring_back({values, symmetric.rows, 1, symmetric.rows});
  return true;
}

bool factorise_f64(ConstColumnsF64 symmetric, DeviceBuffer& factor) {
  const auto& [handle, parameters] = solver_handle();
  There lower(symmetric);
  const Info info;
  size_t device_bytes = 0, host_bytes = 0;
  check_solver(solver().cholesky_memory(handle, parameters, CUBLAS_FILL_MODE_LOWER, symmetric.rows, CUDA_R_64F,
                                        lower.data(), lower.stride(), CUDA_R_64F, &device_bytes, &host_bytes),
               "memory of a Cholesky factor");
  Workspace work(device_bytes, host_bytes);
  check_solver(solver().cholesky(handle, parameters, CUBLAS_FILL_MODE_LOWER, symmetric.rows, CUDA_R_64F, lower.data(),
                                 lower.stride(), CUDA_R_64F, work.device.data(), device_bytes, work.host.data(),
                                 host_bytes, info.data()),
               "a Cholesky factor");
  factor = lower.take();
  return info.read() == 0;
}

void solve_f64(const DeviceBuffer& factor, ColumnsF64 right, CholeskyF64::Parts parts) {
  const There there{ConstColumnsF64(right)};
  const double one = 1.0;
  const auto solve = [&](cublasOperation_t operation) {
    check_blas(
        blas().dtrsm(blas_handle(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, operation, CUBLAS_DIAG_NON_UNIT,
                     static_cast<int>(right.rows), static_cast<int>(right.columns), &one,
                     reinterpret_cast<const double*>(factor.data()), there.stride(), there.data(), there.stride()),
        "a triangular system");
  };
  if (parts.lower) solve(CUBLAS_OP_N);
  if (parts.upper) solve(CUBLAS_OP_T);
  there.bring_back(right);
}

}  // namespace scd::kernels::cuda
