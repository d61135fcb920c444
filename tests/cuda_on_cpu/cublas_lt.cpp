// libcublasLt: products in FP32 by the CBLAS of the project's packages.
#include <cblas.h>
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <atomic>
#include <bit>
#include <cstring>
#include <vector>

#include "tests/cuda_on_cpu/launch.h"

namespace {

// Counts descriptors; relaxed: it orders nothing.
std::atomic<int64_t> descriptors{0};
struct Counted {
  Counted() { descriptors.fetch_add(1, std::memory_order_relaxed); }
  Counted(const Counted&) : Counted() {}
  ~Counted() { descriptors.fetch_sub(1, std::memory_order_relaxed); }
};

}  // namespace

struct EmulatedBlasLt {};
struct EmulatedPreference {
  Counted counted = {};
};
struct EmulatedLayout {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t stride;
  Counted counted = {};
};
struct EmulatedProduct {
  cublasComputeType_t compute;
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;  // of each row of the result, in its type
  Counted counted = {};
};

namespace {

// To 10 bits of fraction, ties away from zero.
float as_tf32(float value) { return std::bit_cast<float>((std::bit_cast<uint32_t>(value) + 0x1000) & 0xffffe000u); }

float element(const void* data, cudaDataType_t type, uint64_t index) {
  return type == CUDA_R_32F ? static_cast<const float*>(data)[index]
                            : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
}

// The matrix in FP32, column after column.
std::vector<float> widened(const void* data, const EmulatedLayout& layout, bool tf32) {
  std::vector<float> values(layout.rows * layout.columns);
  float* to = values.data();
  for (uint64_t column = 0; column < layout.columns; ++column) {
    const uint64_t first = column * static_cast<uint64_t>(layout.stride);
    for (uint64_t row = 0; row < layout.rows; ++row) {
      const float value = element(data, layout.type, first + row);
      *to++ = tf32 && layout.type == CUDA_R_32F ? as_tf32(value) : value;
    }
  }
  return values;
}

void narrow(const std::vector<float>& values, void* data, const EmulatedLayout& layout) {
  const float* from = values.data();
  for (uint64_t column = 0; column < layout.columns; ++column) {
    const uint64_t first = column * static_cast<uint64_t>(layout.stride);
    for (uint64_t row = 0; row < layout.rows; ++row, ++from) {
      if (layout.type == CUDA_R_32F) {
        static_cast<float*>(data)[first + row] = *from;
      } else {
        static_cast<__nv_bfloat16*>(data)[first + row] = __float2bfloat16_rn(*from);
      }
    }
  }
}

struct Sides {
  uint64_t rows, columns;
};
Sides sides_of(const EmulatedLayout& layout, cublasOperation_t operation) {
  return operation == CUBLAS_OP_N ? Sides{layout.rows, layout.columns} : Sides{layout.columns, layout.rows};
}

CBLAS_TRANSPOSE transpose_of(cublasOperation_t operation) {
  return operation == CUBLAS_OP_N ? CblasNoTrans : CblasTrans;
}

bool fits(const EmulatedProduct& product, const EmulatedLayout& a, const EmulatedLayout& b, const EmulatedLayout& d) {
  const Sides left = sides_of(a, product.transpose_a), right = sides_of(b, product.transpose_b);
  return left.columns == right.rows && left.rows == d.rows && right.columns == d.columns && a.type == b.type &&
         !(a.type == CUDA_R_32F && d.type != CUDA_R_32F);
}

}  // namespace

int64_t scdEmulatedBlasLtDescriptors() { return descriptors.load(std::memory_order_relaxed); }

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS         ? "success"
         : status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported"
                                                 : "invalid value";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static EmulatedBlasLt library;
  *handle = &library;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t) {
  *made = new EmulatedProduct{compute};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  delete product;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  const auto set = [&](auto& to) {
    if (bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(product->transpose_a);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(product->transpose_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(product->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(product->bias);
  }
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t stride) {
  if (stride < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *made = new EmulatedLayout{type, rows, columns, stride};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = new EmulatedPreference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t*, int* count) {
  *count = fits(*product, *a, *b, *d) ? 1 : 0;
  return *count == 1 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void*, size_t,
                              cudaStream_t stream) {
  if (!fits(*product, *a_layout, *b_layout, *d_layout)) return CUBLAS_STATUS_INVALID_VALUE;
  const float by = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
  const auto work = [=, product = *product, of_a = *a_layout, of_b = *b_layout, of_c = *c_layout, of_d = *d_layout] {
    const bool tf32 = product.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const std::vector<float> left = widened(a, of_a, tf32), right = widened(b, of_b, tf32);
    std::vector<float> result = kept == 0.0f ? std::vector<float>(of_d.rows * of_d.columns) : widened(c, of_c, false);
    const auto inner = static_cast<blasint>(sides_of(of_a, product.transpose_a).columns);
    const auto rows = static_cast<blasint>(of_d.rows), columns = static_cast<blasint>(of_d.columns);
    cblas_sgemm(CblasColMajor, transpose_of(product.transpose_a), transpose_of(product.transpose_b), rows, columns,
                inner, by, left.data(), static_cast<blasint>(of_a.rows), right.data(), static_cast<blasint>(of_b.rows),
                kept, result.data(), rows);
    if (product.epilogue == CUBLASLT_EPILOGUE_BIAS) {
      for (size_t i = 0; i < result.size(); ++i) result[i] += element(product.bias, of_d.type, i % of_d.rows);
    }
    narrow(result, d, of_d);
    return cudaSuccess;
  };
  return scd::cuda_on_cpu::submit(stream, work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
