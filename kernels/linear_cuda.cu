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

// c [m, n] = op(a) op(b), row-major: for cuBLAS, whose matrices are column-major, c^T = op(b)^T op(a)^T.
struct Product {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

struct ProductKey {
  int64_t m, n, k, a_stride, b_stride, c_stride;
  DType in, out;
  bool transpose_a, transpose_b, accumulate, tensor_cores;
  uint32_t a_alignment, b_alignment, c_alignment;  // bytes
  auto operator<=>(const ProductKey&) const = default;
};

Product make_product(const ProductKey& key) {
  const BlasLt& blas = blas_lt();
  Product product;
  const cublasComputeType_t compute = key.tensor_cores ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check_blas(blas, blas.make_operation(&product.operation, compute, CUDA_R_32F), "an operation");
  const auto transpose = [&](cublasLtMatmulDescAttributes_t attribute, bool transposed) {
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check_blas(blas, blas.set_operation(product.operation, attribute, &operation, sizeof(operation)),
               "a transposition");
  };
  transpose(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b);
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a);
  const auto layout = [&](cublasLtMatrixLayout_t& made, DType dtype, int64_t rows, int64_t columns, int64_t stride) {
    check_blas(
        blas,
        blas.make_layout(&made, type_of(dtype), static_cast<uint64_t>(columns), static_cast<uint64_t>(rows), stride),
        "a layout");
  };
  layout(product.a, key.in, key.transpose_a ? key.k : key.m, key.transpose_a ? key.m : key.k, key.a_stride);
  layout(product.b, key.in, key.transpose_b ? key.n : key.k, key.transpose_b ? key.k : key.n, key.b_stride);
  layout(product.c, key.out, key.m, key.n, key.c_stride);
  cublasLtMatmulPreference_t preference = nullptr;
  check_blas(blas, blas.make_preference(&preference), "a preference");
  check_blas(blas,
             blas.set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof(kWorkspace)),
             "the size of the workspace");
  const auto align = [&](cublasLtMatmulPreferenceAttributes_t attribute, uint32_t bytes) {
    check_blas(blas, blas.set_preference(preference, attribute, &bytes, sizeof(bytes)), "an alignment");
  };
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.b_alignment);
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.a_alignment);
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.c_alignment);
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.c_alignment);
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  check_blas(blas,
             blas.heuristic(blas.handle, product.operation, product.b, product.a, product.c, product.c, preference, 1,
                            &found, &count),
             "choosing an algorithm");
  if (count == 0) throw std::runtime_error("cuBLASLt has no algorithm for a product of this shape");
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

// Of the first element; as much of it as algorithms care for.
uint32_t alignment_of(const void* data) {
  constexpr uintptr_t kMost = 256;
  const auto address = reinterpret_cast<uintptr_t>(data) | kMost;
  return static_cast<uint32_t>(address & (~address + 1));
}

int64_t stride_of(const ConstMatrix& m) { return m.rows > 1 ? m.row_stride : m.columns; }

void multiply(const GemmArgs& args, bool tensor_cores) {
  const ProductKey key{.m = args.c.rows,
                       .n = args.c.columns,
                       .k = args.transpose_a ? args.a.rows : args.a.columns,
                       .a_stride = stride_of(args.a),
                       .b_stride = stride_of(args.b),
                       .c_stride = stride_of(args.c),
                       .in = args.a.dtype,
                       .out = args.c.dtype,
                       .transpose_a = args.transpose_a,
                       .transpose_b = args.transpose_b,
                       .accumulate = args.beta != 0.0f,
                       .tensor_cores = tensor_cores,
                       .a_alignment = alignment_of(args.a.data),
                       .b_alignment = alignment_of(args.b.data),
                       .c_alignment = alignment_of(args.c.data)};
  const Product& product = product_of(key);
  const float one = 1.0f;
  const BlasLt& blas = blas_lt();
  check_blas(blas,
             blas.matmul(blas.handle, product.operation, &one, args.b.data, product.b, args.a.data, product.a,
                         &args.beta, args.c.data, product.c, args.c.data, product.c, &product.algorithm,
                         device_scratch(Slot::kBlas, kWorkspace), kWorkspace, stream()),
             "a product");
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

void gemm_f32(const GemmArgs& args) { multiply(args, args.a.dtype == DType::kF32); }

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
    multiply({.a = x, .b = weight(), .c = y, .transpose_b = true, .beta = accumulate ? 1.0f : 0.0f}, false);
  }
  if (!bias_.empty()) cuda::add_bias(y, bias_);
}

}  // namespace scd::kernels::cuda
