#include "common/codec/rd/rd_state.h"

#include <algorithm>
#include <cmath>

#include "kernels/linear.h"

namespace scd {
namespace {

DenseMatrix divided_rows(kernels::ConstMatrix rows, kernels::ConstMatrix by_norm_of) {
  DenseMatrix divided(rows.rows, rows.columns);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const float scale = 1.0f / root_mean_square(by_norm_of.row<float>(r), by_norm_of.columns);
    const auto* source = rows.row<float>(r);
    float* target = divided.view().row<float>(r);
    for (int64_t c = 0; c < rows.columns; ++c) target[c] = source[c] * scale;
  }
  return divided;
}

}  // namespace

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

// In double and in order, so that every machine gets the same.
float root_mean_square(const float* row, int64_t count) {
  double sum = 0;
  for (int64_t c = 0; c < count; ++c) sum += double{row[c]} * row[c];
  return static_cast<float>(std::sqrt(sum / static_cast<double>(count) + 1e-12));
}

DenseMatrix normalised_rows(kernels::ConstMatrix rows) { return divided_rows(rows, rows); }

DenseMatrix rd_residual(kernels::ConstMatrix residual, kernels::ConstMatrix anchor) {
  return divided_rows(residual, anchor);
}

}  // namespace scd
