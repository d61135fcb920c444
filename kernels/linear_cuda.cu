// Linear layers: cuBLASLt, opened when the first one runs so that a program built with CUDA starts without it; few rows
// of BF16 go to a matrix-vector kernel of our own.
#include <cublasLt.h>

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/cuda_library.h"
#include "kernels/linear_rows_cuda.h"

namespace scd::kernels::cuda {
namespace {

struct BlasLt {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) make_operation;
  decltype(&cublasLtMatmulDescDestroy) end_operation;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation;
  decltype(&cublasLtMatrixLayoutCreate) make_layout;
  decltype(&cublasLtMatrixLayoutDestroy) end_layout;
  decltype(&cublasLtMatmulPreferenceCreate) make_preference;
  decltype(&cublasLtMatmulPreferenceDestroy) end_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;
  decltype(&cublasLtGetStatusString) status;
  cublasLtHandle_t handle = nullptr;
};

void check_blas(const BlasLt& blas, cublasStatus_t result, const char* what) {
  if (result == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string("cuBLASLt, ") + what + ": " + blas.status(result));
}

const BlasLt& blas_lt() {
  static const BlasLt blas = [] {
    const CudaLibrary library("cublasLt", CUBLAS_VER_MAJOR);
    BlasLt made{};
    library.resolve("cublasLtCreate", made.create);
    library.resolve("cublasLtMatmul", made.matmul);
    library.resolve("cublasLtMatmulAlgoGetHeuristic", made.heuristic);
    library.resolve("cublasLtMatmulDescCreate", made.make_operation);
    library.resolve("cublasLtMatmulDescDestroy", made.end_operation);
    library.resolve("cublasLtMatmulDescSetAttribute", made.set_operation);
    library.resolve("cublasLtMatrixLayoutCreate", made.make_layout);
    library.resolve("cublasLtMatrixLayoutDestroy", made.end_layout);
    library.resolve("cublasLtMatmulPreferenceCreate", made.make_preference);
    library.resolve("cublasLtMatmulPreferenceDestroy", made.end_preference);
    library.resolve("cublasLtMatmulPreferenceSetAttribute", made.set_preference);
    library.resolve("cublasLtGetStatusString", made.status);
    stream();
    check_blas(made, made.create(&made.handle), "cublasLtCreate");
    return made;
  }();
  return blas;
}

cudaDataType_t type_of(DType dtype) { return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// A descriptor of cuBLASLt's; products that are under way need none.
template <class Handle, auto end>
struct EndOf {
  void operator()(Handle handle) const { (blas_lt().*end)(handle); }
};
template <class Handle, auto end>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, EndOf<Handle, end>>;
using Operation = Owned<cublasLtMatmulDesc_t, &BlasLt::end_operation>;
using Layout = Owned<cublasLtMatrixLayout_t, &BlasLt::end_layout>;
using Preference = Owned<cublasLtMatmulPreference_t, &BlasLt::end_preference>;

struct ProductKey {
  int64_t m, n, k, a_stride, b_stride, c_stride;
  DType in, out;
  bool transpose_a, transpose_b, accumulate, tensor_cores;
  uint32_t a_alignment, b_alignment, c_alignment;  // bytes
  uint32_t bias_alignment;                         // 0: no bias
  auto operator<=>(const ProductKey&) const = default;
};

template <class T>
cublasStatus_t set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  return blas_lt().set_operation(operation, attribute, &value, sizeof(value));
}

Operation make_operation(const ProductKey& key, bool adds_bias) {
  const BlasLt& blas = blas_lt();
  cublasLtMatmulDesc_t made = nullptr;
  const cublasComputeType_t compute = key.tensor_cores ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check_blas(blas, blas.make_operation(&made, compute, CUDA_R_32F), "an operation");
  Operation operation(made);
  const auto transposed = [](bool is) { return is ? CUBLAS_OP_T : CUBLAS_OP_N; };
  check_blas(blas, set(made, CUBLASLT_MATMUL_DESC_TRANSA, transposed(key.transpose_b)), "a transposition");
  check_blas(blas, set(made, CUBLASLT_MATMUL_DESC_TRANSB, transposed(key.transpose_a)), "a transposition");
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  if (adds_bias) check_blas(blas, set(made, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue), "a bias");
  return operation;
}

Layout make_layout(DType dtype, int64_t rows, int64_t columns, int64_t stride) {
  cublasLtMatrixLayout_t made = nullptr;
  check_blas(
      blas_lt(),
      blas_lt().make_layout(&made, type_of(dtype), static_cast<uint64_t>(columns), static_cast<uint64_t>(rows), stride),
      "a layout");
  return Layout(made);
}

Preference make_preference(const ProductKey& key) {
  const BlasLt& blas = blas_lt();
  cublasLtMatmulPreference_t made = nullptr;
  check_blas(blas, blas.make_preference(&made), "a preference");
  Preference preference(made);
  check_blas(blas,
             blas.set_preference(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kProductWorkspace,
                                 sizeof(kProductWorkspace)),
             "the size of the workspace");
  const auto align = [&](cublasLtMatmulPreferenceAttributes_t attribute, uint32_t bytes) {
    check_blas(blas, blas.set_preference(made, attribute, &bytes, sizeof(bytes)), "an alignment");
  };
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.b_alignment);
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.a_alignment);
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.c_alignment);
  align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.c_alignment);
  return preference;
}

// c [m, n] = op(a) op(b), row-major: for cuBLAS, whose matrices are column-major, c^T = op(b)^T op(a)^T. A bias of n
// numbers, of c's type, is one for each of its rows.
class Product {
 public:
  // bias: any that is aligned as the key says.
  Product(const ProductKey& key, const void* bias)
      : key_(key),
        a_(make_layout(key.in, key.transpose_a ? key.k : key.m, key.transpose_a ? key.m : key.k, key.a_stride)),
        b_(make_layout(key.in, key.transpose_b ? key.n : key.k, key.transpose_b ? key.k : key.n, key.b_stride)),
        c_(make_layout(key.out, key.m, key.n, key.c_stride)) {
    const Preference preference = make_preference(key);
    if (bias != nullptr) {
      Operation operation = make_operation(key, true);
      check_blas(blas_lt(), set(operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias), "a bias");
      adds_bias_ = choose_algorithm(operation.get(), preference.get());
      if (adds_bias_) {
        spare_.push_back(std::move(operation));
        return;
      }
      // It is added in a pass of its own.
    }
    operation_ = make_operation(key, false);
    if (!choose_algorithm(operation_.get(), preference.get())) {
      throw std::runtime_error("cuBLASLt has no algorithm for a product of this shape");
    }
  }

  // Any thread. False: the bias is still to be added.
  bool run(const GemmArgs& args, const void* bias) {
    if (!adds_bias_) {
      check_blas(blas_lt(), queue(args, operation_.get()), "a product");
      return bias == nullptr;
    }
    Operation operation = taken();
    check_blas(blas_lt(), set(operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias), "a bias");
    check_blas(blas_lt(), queue(args, operation.get()), "a product with a bias");
    const std::scoped_lock lock(mutex_);
    spare_.push_back(std::move(operation));
    return true;
  }

 private:
  // False: there is none.
  bool choose_algorithm(cublasLtMatmulDesc_t operation, cublasLtMatmulPreference_t preference) {
    const BlasLt& blas = blas_lt();
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t result =
        blas.heuristic(blas.handle, operation, b_.get(), a_.get(), c_.get(), c_.get(), preference, 1, &found, &count);
    if (result == CUBLAS_STATUS_NOT_SUPPORTED || (result == CUBLAS_STATUS_SUCCESS && count == 0)) return false;
    check_blas(blas, result, "choosing an algorithm");
    algorithm_ = found.algo;
    return true;
  }

  cublasStatus_t queue(const GemmArgs& args, cublasLtMatmulDesc_t operation) const {
    const BlasLt& blas = blas_lt();
    std::byte* workspace = device_scratch(Slot::kBlas, kProductWorkspace);
    const float one = 1.0f;
    return blas.matmul(blas.handle, operation, &one, args.b.data, b_.get(), args.a.data, a_.get(), &args.beta,
                       args.c.data, c_.get(), args.c.data, c_.get(), &algorithm_, workspace, kProductWorkspace,
                       stream());
  }

  Operation taken() {
    const std::scoped_lock lock(mutex_);
    if (spare_.empty()) return make_operation(key_, true);
    Operation last = std::move(spare_.back());
    spare_.pop_back();
    return last;
  }

  const ProductKey key_;
  const Layout a_, b_, c_;
  Operation operation_;  // null where the bias is part of it
  cublasLtMatmulAlgo_t algorithm_{};
  bool adds_bias_ = false;
  std::mutex mutex_;
  std::vector<Operation> spare_;  // a bias is part of its operation: each belongs to one call at a time
};

// Made once for every shape and kept: there are as many as layer kinds times row counts in use. Prompts may make ever
// new row counts, so that beyond kMostProducts (some 2 KiB each) all go: those in use come back at their next call.
// Shared with the calls that are under way meanwhile. Recordings hold what ran, and need none.
std::shared_ptr<Product> product_of(const ProductKey& key, const void* bias) {
  constexpr size_t kMostProducts = 4096;
  static std::mutex mutex;
  static auto* products = new std::map<ProductKey, std::shared_ptr<Product>>;
  const std::scoped_lock lock(mutex);
  if (const auto found = products->find(key); found != products->end()) return found->second;
  auto made = std::make_shared<Product>(key, bias);
  if (products->size() >= kMostProducts) products->clear();
  return products->emplace(key, std::move(made)).first->second;
}

// Of the first element; as much of it as algorithms care for.
uint32_t alignment_of(const void* data) {
  constexpr uintptr_t kMost = 256;
  const auto address = reinterpret_cast<uintptr_t>(data) | kMost;
  return static_cast<uint32_t>(address & (~address + 1));
}

int64_t stride_of(const ConstMatrix& m) { return m.rows > 1 ? m.row_stride : m.columns; }

// bias: null or [n] of c's type. False: it is still to be added.
bool multiply(const GemmArgs& args, bool tensor_cores, const void* bias) {
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
                       .c_alignment = alignment_of(args.c.data),
                       .bias_alignment = bias == nullptr ? 0 : alignment_of(bias)};
  return product_of(key, bias)->run(args, bias);
}

DeviceBuffer rounded_to_bf16(std::span<const float> values, const Placement& placement) {
  std::vector<BFloat16> rounded;
  for (const float value : values) rounded.push_back(to_bfloat16(value));
  return buffer_of(std::as_bytes(std::span(rounded)), placement);
}

}  // namespace

LinearWeights::LinearWeights(ConstMatrix weight, std::span<const float> bias, DType precision,
                             const Placement& placement)
    : in_features_(weight.columns),
      out_features_(weight.rows),
      precision_(precision),
      memory_(placement, static_cast<size_t>(weight.rows * weight.columns) * size_of(precision)),
      bias_(bias, placement),
      narrow_bias_(precision == DType::kBF16 ? rounded_to_bf16(bias, placement) : DeviceBuffer()) {
  const Matrix kept{memory_.data(), out_features_, in_features_, in_features_, precision, Device::kGpu};
  if (weight.dtype == precision) {
    cuda::copy(weight, kept);
    return;
  }
  DeviceBuffer there;
  if (weight.device == Device::kCpu) {
    there = DeviceBuffer(Device::kGpu, static_cast<size_t>(weight.rows * weight.columns) * size_of(weight.dtype));
    const Matrix brought{there.data(), weight.rows, weight.columns, weight.columns, weight.dtype, Device::kGpu};
    cuda::copy(weight, brought);
    weight = brought;
  }
  cuda::convert(weight, kept);
  synchronize();  // before `there` goes
}

void gemm_f32(const GemmArgs& args) {
  const float* bias = args.bias.empty() ? nullptr : args.bias.data();
  if (!multiply(args, args.a.dtype == DType::kF32, bias)) cuda::add_bias(args.c, args.bias);
}

ConstMatrix LinearWeights::weight() const {
  return {memory_.data(), out_features_, in_features_, in_features_, precision_, Device::kGpu};
}

void LinearWeights::forward(ConstMatrix x, Matrix y, bool accumulate) const {
  if (x.dtype != precision_) {
    const size_t bytes = static_cast<size_t>(x.rows * x.columns) * size_of(precision_);
    const Matrix rounded{
        device_scratch(Slot::kLinearInput, bytes), x.rows, x.columns, x.columns, precision_, Device::kGpu};
    cuda::convert(x, rounded);
    x = rounded;
  }
  if (precision_ == DType::kF32 && y.dtype != DType::kF32) {  // which cuBLASLt does not offer
    const Matrix wide{device_scratch(Slot::kLinearOutput, static_cast<size_t>(y.rows * y.columns) * sizeof(float)),
                      y.rows,
                      y.columns,
                      y.columns,
                      DType::kF32,
                      Device::kGpu};
    forward(x, wide, false);
    cuda::convert(wide, y);
    return;
  }
  if (takes_linear_rows(weight(), x)) {
    linear_rows(weight(), x, y, bias_, accumulate);
    return;
  }
  const std::span<const float> wide = bias_;
  const void* bias = y.dtype == DType::kF32 ? static_cast<const void*>(wide.data()) : narrow_bias_.data();
  const GemmArgs product{.a = x, .b = weight(), .c = y, .transpose_b = true, .beta = accumulate ? 1.0f : 0.0f};
  if (!multiply(product, false, bias_.empty() ? nullptr : bias)) cuda::add_bias(y, bias_);
}

}  // namespace scd::kernels::cuda
