// Linear layers: cuBLASLt, opened when the first one runs so that a program built with CUDA starts without it; few rows
// of BF16 go to a matrix-vector kernel of our own.
#include <cublasLt.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/linear_rows_cuda.h"

namespace scd::kernels::cuda {
namespace {

constexpr size_t kWorkspace = size_t{32} << 20;

struct BlasLt {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) make_operation;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation;
  decltype(&cublasLtMatrixLayoutCreate) make_layout;
  decltype(&cublasLtMatmulPreferenceCreate) make_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;
  decltype(&cublasLtGetStatusString) status;
  cublasLtHandle_t handle = nullptr;
};

void check_blas(const BlasLt& blas, cublasStatus_t result, const char* what) {
  if (result == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string("cuBLASLt, ") + what + ": " + blas.status(result));
}

template <class F>
void resolve(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr) throw std::runtime_error(std::string("cuBLASLt has no ") + name);
}

const BlasLt& blas_lt() {
  static const BlasLt blas = [] {
    const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      throw std::runtime_error(name + " of the CUDA toolkit is needed and was not found (" + dlerror() +
                               "); install it or add its folder to LD_LIBRARY_PATH");
    }
    BlasLt made{};
    resolve(library, "cublasLtCreate", made.create);
    resolve(library, "cublasLtMatmul", made.matmul);
    resolve(library, "cublasLtMatmulAlgoGetHeuristic", made.heuristic);
    resolve(library, "cublasLtMatmulDescCreate", made.make_operation);
    resolve(library, "cublasLtMatmulDescSetAttribute", made.set_operation);
    resolve(library, "cublasLtMatrixLayoutCreate", made.make_layout);
    resolve(library, "cublasLtMatmulPreferenceCreate", made.make_preference);
    resolve(library, "cublasLtMatmulPreferenceSetAttribute", made.set_preference);
    resolve(library, "cublasLtGetStatusString", made.status);
    stream();
    check_blas(made, made.create(&made.handle), "cublasLtCreate");
    return made;
  }();
  return blas;
}

cudaDataType_t type_of(DType dtype) { return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// y [m, n] = x [m, k] W [n, k]^T, row-major: for cuBLAS, whose matrices are column-major, y^T = (W^T)^T x^T.
struct Product {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

struct ProductKey {
  int64_t m, n, k, x_stride, y_stride;
  DType precision, out;
  bool accumulate;
  auto operator<=>(const ProductKey&) const = default;
};

Product make_product(const ProductKey& key) {
  const BlasLt& blas = blas_lt();
  Product product;
  check_blas(blas, blas.make_operation(&product.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_blas(blas, blas.set_operation(product.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
             "the transposition of a weight");
  const auto layout = [&](cublasLtMatrixLayout_t& made, DType dtype, int64_t rows, int64_t columns, int64_t stride) {
    check_blas(
        blas,
        blas.make_layout(&made, type_of(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), stride),
        "a layout");
  };
  layout(product.weight, key.precision, key.k, key.n, key.k);
  layout(product.x, key.precision, key.k, key.m, key.x_stride);
  layout(product.y, key.out, key.n, key.m, key.y_stride);
  cublasLtMatmulPreference_t preference = nullptr;
  check_blas(blas, blas.make_preference(&preference), "a preference");
  check_blas(blas,
             blas.set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof(kWorkspace)),
             "the size of the workspace");
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  check_blas(blas,
             blas.heuristic(blas.handle, product.operation, product.weight, product.x, product.y, product.y, preference,
                            1, &found, &count),
             "choosing an algorithm");
  if (count == 0) throw std::runtime_error("cuBLASLt has no algorithm for a linear layer of this shape");
  product.algorithm = found.algo;
  return product;
}

// Made once for every shape and kept: there are as many as layer kinds times row counts in use.
const Product& product_of(const ProductKey& key) {
  static std::mutex mutex;
  static auto* products = new std::map<ProductKey, Product>;
  const std::scoped_lock lock(mutex);
  const auto found = products->find(key);
  return found != products->end() ? found->second : products->emplace(key, make_product(key)).first->second;
}

void multiply(const ConstMatrix& weight, const ConstMatrix& x, const Matrix& y, bool accumulate) {
  const ProductKey key{x.rows,
                       weight.rows,
                       weight.columns,
                       x.rows > 1 ? x.row_stride : x.columns,
                       y.rows > 1 ? y.row_stride : y.columns,
                       weight.dtype,
                       y.dtype,
                       accumulate};
  const Product& product = product_of(key);
  const float one = 1.0f, beta = accumulate ? 1.0f : 0.0f;
  const BlasLt& blas = blas_lt();
  check_blas(blas,
             blas.matmul(blas.handle, product.operation, &one, weight.data, product.weight, x.data, product.x, &beta,
                         y.data, product.y, y.data, product.y, &product.algorithm,
                         device_scratch(Slot::kBlas, kWorkspace), kWorkspace, stream()),
             "a linear layer");
}

}  // namespace

LinearWeights::LinearWeights(ConstMatrix weight, std::span<const float> bias, DType precision)
    : in_features_(weight.columns),
      out_features_(weight.rows),
      precision_(precision),
      memory_(Device::kCuda, static_cast<size_t>(weight.rows * weight.columns) * size_of(precision)),
      bias_(bias, Device::kCuda) {
  const Matrix kept{memory_.data(), out_features_, in_features_, in_features_, precision, Device::kCuda};
  if (weight.dtype == precision) {
    cuda::copy(weight, kept);
    return;
  }
  DeviceBuffer there;
  if (weight.device == Device::kCpu) {
    there = DeviceBuffer(Device::kCuda, static_cast<size_t>(weight.rows * weight.columns) * size_of(weight.dtype));
    const Matrix brought{there.data(), weight.rows, weight.columns, weight.columns, weight.dtype, Device::kCuda};
    cuda::copy(weight, brought);
    weight = brought;
  }
  cuda::convert(weight, kept);
  synchronize();  // before `there` goes
}

ConstMatrix LinearWeights::weight() const {
  return {memory_.data(), out_features_, in_features_, in_features_, precision_, Device::kCuda};
}

void LinearWeights::forward(ConstMatrix x, Matrix y, bool accumulate) const {
  if (x.dtype != precision_) {
    const size_t bytes = static_cast<size_t>(x.rows * x.columns) * size_of(precision_);
    const Matrix rounded{
        device_scratch(Slot::kLinearInput, bytes), x.rows, x.columns, x.columns, precision_, Device::kCuda};
    cuda::convert(x, rounded);
    x = rounded;
  }
  if (precision_ == DType::kF32 && y.dtype != DType::kF32) {  // which cuBLASLt does not offer
    const Matrix wide{device_scratch(Slot::kLinearOutput, static_cast<size_t>(y.rows * y.columns) * sizeof(float)),
                      y.rows,
                      y.columns,
                      y.columns,
                      DType::kF32,
                      Device::kCuda};
    forward(x, wide, false);
    cuda::convert(wide, y);
    return;
  }
  if (takes_linear_rows(weight(), x)) {
    linear_rows(weight(), x, y, accumulate);
  } else {
    multiply(weight(), x, y, accumulate);
  }
  if (!bias_.empty()) cuda::add_bias(y, bias_);
}

}  // namespace scd::kernels::cuda
