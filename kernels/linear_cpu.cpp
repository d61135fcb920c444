// Which copy of the weights a CPU gets, and which kernel multiplies them.
#include "kernels/linear_cpu.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu_kernels.h"
#include "kernels/cpu_level.h"
#include "kernels/linear_panels.h"
#include "kernels/linear_rows.h"
#include "kernels/number.h"
#include "kernels/scratch.h"

namespace scd::kernels::cpu {
namespace {

// Inputs [first, first + count) of one weight row as BF16, whatever it is stored in.
void round_inputs(const ConstMatrix& weight, int64_t row, int64_t first, int64_t count, uint16_t* to) {
  switch (weight.dtype) {
    case DType::kF32:
      for (int64_t i = 0; i < count; ++i) to[i] = float_to_bf16(weight.row<float>(row)[first + i]);
      break;
    case DType::kBF16: std::copy_n(weight.row<uint16_t>(row) + first, count, to); break;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) to[i] = float_to_bf16(f16_to_float(weight.row<uint16_t>(row)[first + i]));
      break;
  }
}

void pack_panel(const ConstMatrix& weight, const PanelWeights& shape, int64_t panel, uint16_t* packed) {
  const int64_t columns = std::min(kPanelColumns, weight.rows - panel * kPanelColumns);
  for (int64_t first = 0; first < weight.columns; first += kInputBlock) {
    const int64_t count = std::min(kInputBlock, weight.columns - first);
    uint16_t* block = packed + panel * shape.panel_elements() + first * kPanelColumns;
    for (int64_t column = 0; column < columns; ++column) {
      uint16_t inputs[kInputBlock] = {};
      round_inputs(weight, panel * kPanelColumns + column, first, count, inputs);
      for (int64_t pair = 0; pair < kInputBlock / 2; ++pair) {
        uint16_t* to = block + (pair * kPanelColumns + column) * 2;
        to[0] = inputs[2 * pair];
        to[1] = inputs[2 * pair + 1];
      }
    }
  }
}

}  // namespace

struct LinearWeights::State {
  int64_t in = 0;
  int64_t out = 0;
  DType precision = DType::kF32;
  bool in_panels = false;  // else [out, in] row-major
  std::vector<float> bias;
  AlignedBuffer memory;

  const float* bias_or_null() const { return bias.empty() ? nullptr : bias.data(); }
  // The first `inputs` of the weights.
  PanelWeights panels(int64_t inputs) const {
    return {reinterpret_cast<const uint16_t*>(memory.data()), bias_or_null(), in, inputs, out};
  }
  ConstMatrix rows(int64_t inputs) const { return {memory.data(), out, inputs, in, precision}; }
};

LinearWeights::LinearWeights(ConstMatrix weight, std::span<const float> bias, DType precision)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.in = weight.columns;
  s.out = weight.rows;
  s.precision = precision;
  s.in_panels = precision == DType::kBF16 && bf16_is_native();
  s.bias.assign(bias.begin(), bias.end());
  if (!s.in_panels) {
    s.memory = AlignedBuffer(static_cast<size_t>(s.in * s.out) * size_of(precision));
    cpu::convert(weight, Matrix{s.memory.data(), s.out, s.in, s.in, precision});
    return;
  }
  const PanelWeights shape = s.panels(s.in);
  s.memory = AlignedBuffer(static_cast<size_t>(shape.panels() * shape.panel_elements()) * sizeof(uint16_t));
  auto* packed = reinterpret_cast<uint16_t*>(s.memory.data());
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < shape.panels(); ++panel) pack_panel(weight, shape, panel, packed);
}

LinearWeights::LinearWeights(LinearWeights&&) noexcept = default;
LinearWeights& LinearWeights::operator=(LinearWeights&&) noexcept = default;
LinearWeights::~LinearWeights() = default;

int64_t LinearWeights::in_features() const { return state_->in; }
int64_t LinearWeights::out_features() const { return state_->out; }
DType LinearWeights::precision() const { return state_->precision; }
size_t LinearWeights::bytes() const { return state_->memory.size() + state_->bias.size() * sizeof(float); }

void LinearWeights::forward(ConstMatrix x, Matrix y, bool accumulate) const {
  const State& s = *state_;
  if (s.in_panels) {
    const PanelProduct product{.weights = s.panels(x.columns), .x = x, .y = y, .accumulate = accumulate};
    if (x.rows > kMatrixVectorRows && cpu_level() >= CpuLevel::kAmx) {
      multiply_amx(product);
    } else {
      multiply_avx512_bf16(product);
    }
    return;
  }
  // Rounded as the kernels of CPUs with BF16 arithmetic round: the precision decides, not the machine.
  if (s.precision == DType::kBF16 && x.dtype == DType::kF32) {
    auto* rounded = scratch(ScratchSlot::kLinearRounded, static_cast<size_t>(x.rows * x.columns) * sizeof(uint16_t));
    const Matrix half{rounded, x.rows, x.columns, x.columns, DType::kBF16};
    cpu::convert(x, half);
    x = half;
  }
  if (x.dtype != DType::kF32) {
    auto* expanded = reinterpret_cast<float*>(
        scratch(ScratchSlot::kLinearInput, static_cast<size_t>(x.rows * x.columns) * sizeof(float)));
    cpu::convert(x, matrix(expanded, x.rows, x.columns));
    x = matrix(expanded, x.rows, x.columns);
  }
  Matrix sums = y;
  if (y.dtype != DType::kF32) {
    sums = matrix(reinterpret_cast<float*>(
                      scratch(ScratchSlot::kLinearOutput, static_cast<size_t>(y.rows * y.columns) * sizeof(float))),
                  y.rows, y.columns);
  }
  multiply_rows({.weight = s.rows(x.columns), .bias = s.bias_or_null(), .x = x, .y = sums, .accumulate = accumulate});
  if (y.dtype != DType::kF32) cpu::convert(sums, y);
}

}  // namespace scd::kernels::cpu
