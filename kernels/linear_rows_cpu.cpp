// Few rows: dot products over the weight rows, read once; bounded by memory. More rows: a single-precision GEMM, BF16
// weights expanded a slice at a time, which costs one pass over the weight beside `rows` passes of multiplication.
#include <algorithm>
#include <cstring>

#include "kernels/cpu_kernels.h"
#include "kernels/lanes.h"
#include "kernels/linear_rows.h"
#include "kernels/number.h"
#include "kernels/scratch.h"
#include "kernels/sgemm.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kMatrixVectorRows = 4;

template <int Rows, class Stored>
void dot_rows(const RowProduct& product, int64_t out) {
  constexpr int kChains = 2;
  const int64_t n = product.weight.columns;
  const Stored* weight = product.weight.row<Stored>(out);
  Lanes sums[Rows][kChains] = {};
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
    for (int chain = 0; chain < kChains; ++chain) {
      const Lanes w = load(weight + i + chain * kLanes);
      for (int row = 0; row < Rows; ++row) {
        sums[row][chain] += w * load(product.x.row<float>(row) + i + chain * kLanes);
      }
    }
  }
  for (int row = 0; row < Rows; ++row) {
    float sum = sum_of(sums[row][0] + sums[row][1]);
    for (int64_t j = i; j < n; ++j) {
      const float w =
          sizeof(Stored) == 4 ? product.weight.row<float>(out)[j] : bf16_to_float(product.weight.row<uint16_t>(out)[j]);
      sum += w * product.x.row<float>(row)[j];
    }
    if (product.bias != nullptr) sum += product.bias[out];
    float& y = product.y.row<float>(row)[out];
    y = product.accumulate ? y + sum : sum;
  }
}

template <int Rows>
void multiply_few_rows(const RowProduct& product) {
#pragma omp parallel for schedule(dynamic, 32) if (product.weight.rows * product.weight.columns > 16384)
  for (int64_t out = 0; out < product.weight.rows; ++out) {
    if (product.weight.dtype == DType::kF32) {
      dot_rows<Rows, float>(product, out);
    } else {
      dot_rows<Rows, uint16_t>(product, out);
    }
  }
}

// beta of the GEMM that follows: the bias goes into y first.
float begin_with_bias(const RowProduct& product) {
  if (product.bias == nullptr) return product.accumulate ? 1.0f : 0.0f;
#pragma omp parallel for schedule(static) if (product.y.rows * product.y.columns > 16384)
  for (int64_t r = 0; r < product.y.rows; ++r) {
    float* y = product.y.row<float>(r);
    for (int64_t i = 0; i < product.y.columns; ++i) y[i] = product.bias[i] + (product.accumulate ? y[i] : 0.0f);
  }
  return 1.0f;
}

void multiply_many_rows(const RowProduct& product) {
  const float beta = begin_with_bias(product);
  if (product.weight.dtype == DType::kF32) {
    sgemm({.a = product.x, .b = product.weight, .c = product.y, .transpose_b = true, .beta = beta});
    return;
  }
  constexpr int64_t kSliceRows = 512;
  const int64_t in = product.weight.columns;
  const size_t bytes = static_cast<size_t>(std::min(kSliceRows, product.weight.rows) * in) * sizeof(float);
  auto* expanded = reinterpret_cast<float*>(scratch(ScratchSlot::kLinearWeight, bytes));
  for (int64_t first = 0; first < product.weight.rows; first += kSliceRows) {
    const int64_t rows = std::min(kSliceRows, product.weight.rows - first);
    const ConstMatrix slice{product.weight.row<uint16_t>(first), rows, in, product.weight.row_stride, DType::kBF16};
    cpu::convert(slice, matrix(expanded, rows, in));
    const Matrix y{product.y.row<float>(0) + first, product.y.rows, rows, product.y.row_stride};
    sgemm({.a = product.x, .b = matrix(expanded, rows, in), .c = y, .transpose_b = true, .beta = beta});
  }
}

// The block [first_row, +rows) x [first_column, +columns) of a product, with the parts of a and b that make it.
GemmArgs block_of(const GemmArgs& args, int64_t first_row, int64_t first_column, int64_t rows, int64_t columns) {
  GemmArgs block = args;
  if (args.transpose_a) {
    block.a.data = args.a.row<float>(0) + first_row;
    block.a.columns = rows;
  } else {
    block.a.data = args.a.row<float>(first_row);
    block.a.rows = rows;
  }
  if (args.transpose_b) {
    block.b.data = args.b.row<float>(first_column);
    block.b.rows = columns;
  } else {
    block.b.data = args.b.row<float>(0) + first_column;
    block.b.columns = columns;
  }
  block.c.data = args.c.row<float>(first_row) + first_column;
  block.c.rows = rows;
  block.c.columns = columns;
  return block;
}

}  // namespace

void multiply_rows(const RowProduct& product) {
  switch (product.x.rows) {
    case 1: return multiply_few_rows<1>(product);
    case 2: return multiply_few_rows<2>(product);
    case 3: return multiply_few_rows<3>(product);
    case kMatrixVectorRows: return multiply_few_rows<4>(product);
    default: return multiply_many_rows(product);
  }
}

void gemm_f32(const GemmArgs& args) {
  constexpr int64_t kBlock = 384;
  const int64_t row_blocks = (args.c.rows + kBlock - 1) / kBlock;
  const int64_t column_blocks = (args.c.columns + kBlock - 1) / kBlock;
  // sgemm runs on the calling thread alone inside a parallel region, so each block has one order of summation.
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
  for (int64_t i = 0; i < row_blocks; ++i) {
    for (int64_t j = 0; j < column_blocks; ++j) {
      sgemm(block_of(args, i * kBlock, j * kBlock, std::min(kBlock, args.c.rows - i * kBlock),
                     std::min(kBlock, args.c.columns - j * kBlock)));
    }
  }
  if (!args.bias.empty()) cpu::add_bias(args.c, args.bias);
}

}  // namespace scd::kernels::cpu
