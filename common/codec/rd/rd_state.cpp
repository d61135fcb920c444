#include "common/codec/rd/rd_state.h"

#include <algorithm>
#include <utility>

#include "kernels/device.h"
#include "kernels/grow_buffer.h"
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
    DenseMatrix seen(unit.anchor_basis.empty() ? 0 : anchor.rows, unit.anchor_basis.columns);
    if (!seen.empty()) kernels::gemm_f32({.a = anchor, .b = unit.anchor_basis.view(), .c = seen.view()});
    kernels::gemm_f32({.a = seen.empty() ? anchor : std::as_const(seen).view(),
                       .b = unit.anchor_map.view(),
                       .c = state.view(),
                       .beta = 1.0f});
  }
  if (codes.rows > 0) {
    kernels::gemm_f32(
        {.a = codes, .b = unit.map.top(codes.rows), .c = state.view(), .transpose_a = true, .beta = 1.0f});
  }
  add_network(unit.network, {codes, anchor}, state.view());
  return state;
}

namespace {

// One product of [directions, codes] instead of two. A unit that sends nothing and is predicted from nothing has a
// column of zeros.
kernels::PackedLinear rounded_product(const RdUnitDecoder& unit) {
  DenseMatrix map(std::ssize(unit.mean), std::max<int64_t>(unit.anchor_map.rows + unit.map.rows, 1));
  for (int64_t row = 0; row < map.rows; ++row) {
    float* to = map.view().row<float>(row);
    for (int64_t i = 0; i < unit.anchor_map.rows; ++i) to[i] = unit.anchor_map.at(i, row);
    for (int64_t i = 0; i < unit.map.rows; ++i) to[unit.anchor_map.rows + i] = unit.map.at(i, row);
  }
  return {std::as_const(map).view(), unit.mean, kernels::DType::kBF16};
}

}  // namespace

RdRoundedUnit::RdRoundedUnit(const RdUnitDecoder& unit)
    : directions_(unit.anchor_map.rows), product_(rounded_product(unit)) {
  if (unit.anchor_basis.empty()) return;
  const DenseMatrix weight = transposed(unit.anchor_basis);
  basis_.emplace(weight.view(), std::span<const float>{}, kernels::DType::kBF16);
}

kernels::Matrix RdRoundedUnit::reconstruct(kernels::ConstMatrix codes, kernels::ConstMatrix anchor) const {
  thread_local kernels::GrowBuffer inputs_memory, state_memory;  // a payload a call: keep the memory
  // Components that a level leaves out come last. An empty product is not one: the first component is zero then.
  const kernels::Matrix inputs = inputs_memory.matrix(anchor.rows, std::max<int64_t>(directions_ + codes.rows, 1));
  kernels::Matrix seen = inputs;
  seen.columns = directions_;
  if (basis_) {
    basis_->forward(anchor, seen);
  } else if (directions_ > 0) {
    kernels::copy(anchor, seen);
  }
  for (int64_t row = 0; row < inputs.rows; ++row) {
    float* to = inputs.row<float>(row) + directions_;
    for (int64_t code = 0; code < codes.rows; ++code) to[code] = codes.row<float>(code)[row];
    std::fill(to + codes.rows, inputs.row<float>(row) + inputs.columns, 0.0f);
  }
  const kernels::Matrix state = state_memory.matrix(inputs.rows, product_.out_features());
  product_.forward(inputs, state);
  return state;
}

DenseMatrix normalised_rows(kernels::ConstMatrix rows) { return rd_residual(rows, rows); }

DenseMatrix rd_residual(kernels::ConstMatrix residual, kernels::ConstMatrix anchor) {
  DenseMatrix divided(residual.rows, residual.columns);
  kernels::divide_by_rms(residual, anchor, divided.view());
  return divided;
}

}  // namespace scd
