#include "kernels/rms_norm.h"

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

void check_norm(const ConstMatrix& x, std::span<const float> weight, const ConstMatrix& y) {
  require_on(y.device, x, "the input of a norm");
  require_matrix(y, "the output of a norm");
  require(x.dtype == DType::kF32, "rms_norm: the input ", x, " must be F32");
  require(y.dtype != DType::kF16, "rms_norm: the output ", y, " must be F32 or BF16");
  require(y.rows == x.rows && y.columns == x.columns, "rms_norm: the output ", y, " must have the shape of the input ",
          x);
  require(static_cast<int64_t>(weight.size()) == x.columns, "rms_norm: ", static_cast<int64_t>(weight.size()),
          " weights for an input ", x);
}

void check_by_rms(const ConstMatrix& x, const ConstMatrix& by, const ConstMatrix& out, const char* op) {
  require_on(out.device, x, "the input of a scaling of rows");
  require_on(out.device, by, "the rows that it scales by");
  require_matrix(out, "the output of a scaling of rows");
  require(x.dtype == DType::kF32 && by.dtype == DType::kF32, op, ": ", x, " and ", by, " must be F32");
  require(out.dtype != DType::kF16, op, ": the output ", out, " must be F32 or BF16");
  require(out.rows == x.rows && out.columns == x.columns && by.rows == x.rows && by.columns > 0, op, ": the output ",
          out, " and the rows ", by, " do not fit the input ", x);
}

}  // namespace

void rms_norm(ConstMatrix x, std::span<const float> weight, float epsilon, Matrix y) {
  check_norm(x, weight, y);
  if (x.rows > 0) SCD_DISPATCH(y.device, rms_norm(x, weight, epsilon, y));
}

void divide_by_rms(ConstMatrix x, ConstMatrix by, Matrix out) {
  check_by_rms(x, by, out, "divide_by_rms");
  if (x.rows > 0) SCD_DISPATCH(out.device, divide_by_rms(x, by, out));
}

void multiply_by_rms(ConstMatrix x, ConstMatrix by, Matrix out) {
  check_by_rms(x, by, out, "multiply_by_rms");
  if (x.rows > 0) SCD_DISPATCH(out.device, multiply_by_rms(x, by, out));
}

void rms_norm_heads(Matrix x, int64_t head_dim, std::span<const float> weight, float epsilon) {
  require_matrix(x, "the input of rms_norm_heads");
  require(x.dtype == DType::kF32, "rms_norm_heads: the input ", x, " must be F32");
  require(head_dim > 0 && x.columns % head_dim == 0, "rms_norm_heads: heads of ", head_dim, " do not divide ", x);
  require(static_cast<int64_t>(weight.size()) == head_dim, "rms_norm_heads: ", static_cast<int64_t>(weight.size()),
          " weights for heads of ", head_dim);
  if (x.rows > 0) SCD_DISPATCH(x.device, rms_norm_heads(x, head_dim, weight, epsilon));
}

}  // namespace scd::kernels
