#include "kernels/elementwise.h"

#include "kernels/cpu_kernels.h"
#include "kernels/require.h"

namespace scd::kernels {

void embedding(ConstMatrix table, std::span<const int32_t> ids, Matrix out) {
  require_cpu(table, "the table of embedding");
  require_cpu(out, "the output of embedding");
  require(table.dtype != DType::kF16, "embedding: the table ", table, " must be F32 or BF16");
  require(out.dtype == DType::kF32 && out.columns == table.columns && out.rows == static_cast<int64_t>(ids.size()),
          "embedding: the output ", out, " must be F32 with one row for each of ", static_cast<int64_t>(ids.size()),
          " ids from the table ", table);
  for (int32_t id : ids) {
    require(id >= 0 && id < table.rows, "embedding: id ", static_cast<int64_t>(id), " is outside the table ", table);
  }
  cpu::embedding(table, ids, out);
}

void silu_mul(ConstMatrix gate_up, Matrix out) {
  require_cpu(gate_up, "the input of silu_mul");
  require_cpu(out, "the output of silu_mul");
  require(gate_up.dtype == DType::kF32 && out.dtype != DType::kF16, "silu_mul: from F32 to F32 or BF16, not ", gate_up,
          " to ", out);
  require(gate_up.rows == out.rows && gate_up.columns == 2 * out.columns, "silu_mul: the input ", gate_up,
          " must be twice as wide as the output ", out);
  cpu::silu_mul(gate_up, out);
}

void convert(ConstMatrix in, Matrix out) {
  require_cpu(in, "the input of convert");
  require_cpu(out, "the output of convert");
  require(out.dtype != DType::kF16, "convert: the output ", out, " must be F32 or BF16");
  require(in.rows == out.rows && in.columns == out.columns, "convert: the output ", out,
          " must have the shape of the input ", in);
  cpu::convert(in, out);
}

void add(Matrix residual, ConstMatrix delta) {
  require_cpu(residual, "the residual of add");
  require_cpu(delta, "the delta of add");
  require(residual.dtype == DType::kF32 && delta.dtype == DType::kF32 && residual.rows == delta.rows &&
              residual.columns == delta.columns,
          "add: the delta ", delta, " and the residual ", residual, " must be F32 of one shape");
  cpu::add(residual, delta);
}

}  // namespace scd::kernels
