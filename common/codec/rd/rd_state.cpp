#include "common/codec/rd/rd_state.h"

#include <algorithm>
#include <utility>

#include "kernels/linear.h"
#include "kernels/rms_norm.h"

namespace scd {
int64_t rd_state_width(const CodecModel& consumer, const CodedUnit& unit) {
  return unit.residual ? consumer.hidden : 2 * consumer.kv_width() * unit.layers;
}

int64_t rd_source_width(const CodecModel& producer, const CodedUnit& unit, const UnitSource& source) {
  return unit.residual ? producer.hidden : 2 * producer.kv_width() * source.layers;
}

DenseMatrix reconstruct(const RdUnitDecoder& unit, kernels::ConstMatrix codes, kernels::ConstMatrix anchor) {
  DenseMatrix state(anchor.rows, std::ssize(unit.mean));
  for (int64_t row = 0; row < state.rows; ++row) std::ranges::copy(unit.mean, state.view().row<float>(row));
  if (anchor.columns > 0) {
    kernels::gemm_f32({.a = anchor, .b = unit.anchor_map.view(), .c = state.view(), .beta = 1.0f});
  }
  if (codes.rows > 0) {
    kernels::gemm_f32(
        {.a = codes, .b = unit.map.top(codes.rows), .c = state.view(), .transpose_a = true, .beta = 1.0f});
  }
  add_network(unit.network, {codes, anchor}, state.view());
  return state;
}

kernels::PackedLinear rounded_product(const RdUnitDecoder& unit) {
  // A unit that sends nothing and is predicted from nothing has a column of zeros.
  DenseMatrix map(std::ssize(unit.mean), std::max<int64_t>(unit.anchor_map.rows + unit.map.rows, 1));
  for (int64_t row = 0; row < map.rows; ++row) {
    float* to = map.view().row<float>(row);
    for (int64_t i = 0; i < unit.anchor_map.rows; ++i) to[i] = unit.anchor_map.at(i, row);
    for (int64_t i = 0; i < unit.map.rows; ++i) to[unit.anchor_map.rows + i] = unit.map.at(i, row);
  }
  return {std::as_const(map).view(), unit.mean, kernels::DType::kBF16};
}

DenseMatrix normalised_rows(kernels::ConstMatrix rows) { return rd_residual(rows, rows); }

DenseMatrix rd_residual(kernels::ConstMatrix residual, kernels::ConstMatrix anchor) {
  DenseMatrix divided(residual.rows, residual.columns);
  kernels::divide_by_rms(residual, anchor, divided.view());
  return divided;
}

}  // namespace scd
