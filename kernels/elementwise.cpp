#include "kernels/elementwise.h"

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {

void embedding(ConstMatrix table, Indices ids, Matrix out) {
  require_on(out.device, table, "the table of embedding");
  require_matrix(out, "the output of embedding");
  require(table.dtype != DType::kF16, "embedding: the table ", table, " must be F32 or BF16");
  require(out.dtype == DType::kF32 && out.columns == table.columns && out.rows == ids.size(), "embedding: the output ",
          out, " must be F32 with one row for each of ", ids.size(), " ids from the table ", table);
  for (int32_t id : ids.host) {
    require(id >= 0 && id < table.rows, "embedding: id ", static_cast<int64_t>(id), " is outside the table ", table);
  }
  if (ids.size() > 0) SCD_DISPATCH(out.device, embedding(table, ids, out));
}

void silu_mul(ConstMatrix gate_up, Matrix out) {
  require_on(out.device, gate_up, "the input of silu_mul");
  require_matrix(out, "the output of silu_mul");
  const bool from_bf16 = out.device == Device::kGpu && gate_up.dtype == DType::kBF16;
  require((gate_up.dtype == DType::kF32 || from_bf16) && out.dtype != DType::kF16,
          "silu_mul: from F32 to F32 or BF16, not ", gate_up, " to ", out);
  require(gate_up.rows == out.rows && gate_up.columns == 2 * out.columns, "silu_mul: the input ", gate_up,
          " must be twice as wide as the output ", out);
  if (out.rows > 0) SCD_DISPATCH(out.device, silu_mul(gate_up, out));
}

void convert(ConstMatrix in, Matrix out) {
  require_on(out.device, in, "the input of convert");
  require_matrix(out, "the output of convert");
  require(out.dtype != DType::kF16, "convert: the output ", out, " must be F32 or BF16");
  require(in.rows == out.rows && in.columns == out.columns, "convert: the output ", out,
          " must have the shape of the input ", in);
  if (out.rows > 0) SCD_DISPATCH(out.device, convert(in, out));
}

void fill_rows(Matrix m, std::span<const float> values) {
  require_matrix(m, "the matrix of fill_rows");
  require(m.dtype == DType::kF32 && static_cast<int64_t>(values.size()) == m.rows,
          "fill_rows: ", static_cast<int64_t>(values.size()), " values for the matrix ", m);
  if (m.rows > 0) SCD_DISPATCH(m.device, fill_rows(m, values));
}

void add_bias(Matrix m, std::span<const float> bias) {
  require_matrix(m, "the matrix of add_bias");
  require(m.dtype != DType::kF16, "add_bias: the matrix ", m, " must be F32 or BF16");
  require(static_cast<int64_t>(bias.size()) == m.columns, "add_bias: ", static_cast<int64_t>(bias.size()),
          " values for the matrix ", m);
  if (m.rows > 0) SCD_DISPATCH(m.device, add_bias(m, bias));
}

void fill_normal(Matrix m, uint64_t seed, float deviation) {
  require_matrix(m, "the matrix of fill_normal");
  require(m.dtype != DType::kF16, "fill_normal: the matrix ", m, " must be F32 or BF16");
  if (m.rows > 0) SCD_DISPATCH(m.device, fill_normal(m, seed, deviation));
}

}  // namespace scd::kernels
