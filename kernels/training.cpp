#include "kernels/training.h"

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

// F32, on the device and of the shape of `like`.
void require_like(const ConstMatrix& like, const ConstMatrix& m, const char* name) {
  require_on(like.device, m, name);
  require(like.dtype == DType::kF32 && m.dtype == DType::kF32 && m.rows == like.rows && m.columns == like.columns, name,
          ": ", m, " and ", like, " must be F32 of one shape");
}

bool empty(const ConstMatrix& m) { return m.rows == 0 || m.columns == 0; }

}  // namespace

void silu_with_slope(ConstMatrix before, Matrix after, Matrix slope) {
  require_matrix(before, "the input of silu_with_slope");
  require_like(before, after, "the output of silu_with_slope");
  require_like(before, slope, "the slope of silu_with_slope");
  if (!empty(before)) SCD_DISPATCH(before.device, silu_with_slope(before, after, slope));
}

void multiply(Matrix m, ConstMatrix by) {
  require_matrix(m, "the matrix of multiply");
  require_like(m, by, "the factor of multiply");
  if (!empty(m)) SCD_DISPATCH(m.device, multiply(m, by));
}

void scaled_difference(ConstMatrix a, ConstMatrix b, float scale, Matrix out) {
  require_matrix(a, "a of scaled_difference");
  require_like(a, b, "b of scaled_difference");
  require_like(a, out, "the output of scaled_difference");
  if (!empty(a)) SCD_DISPATCH(a.device, scaled_difference(a, b, scale, out));
}

void sum_rows(ConstMatrix m, Matrix row) {
  require_matrix(m, "the matrix of sum_rows");
  require_on(m.device, row, "the sum of sum_rows");
  require(m.dtype == DType::kF32 && row.dtype == DType::kF32 && row.rows == 1 && row.columns == m.columns,
          "sum_rows: the sum ", row, " must be a row of the matrix ", m, ", F32");
  if (m.columns > 0) SCD_DISPATCH(m.device, sum_rows(m, row));
}

void adamw(const AdamWState& state, const AdamWStep& step) {
  require_matrix(state.parameters, "the parameters of adamw");
  require_like(state.parameters, state.gradient, "the gradient of adamw");
  require_like(state.parameters, state.first, "the mean of adamw");
  require_like(state.parameters, state.second, "the mean square of adamw");
  require(step.step >= 1, "adamw: step ", step.step, " is not one from 1 on");
  if (!empty(state.parameters)) SCD_DISPATCH(state.parameters.device, adamw(state, step));
}

}  // namespace scd::kernels
