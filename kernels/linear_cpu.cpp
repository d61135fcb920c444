// GEMMs by oneDNN.
#include "kernels/linear_cpu.h"

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "kernels/cpu_kernels.h"
#include "kernels/cpu_level.h"
#include "kernels/number.h"

namespace scd::kernels::cpu {
namespace {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;
using Desc = dnnl::memory::desc;

dnnl::engine& engine() {
  static dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

dnnl::stream& stream() {
  static dnnl::stream instance(engine());
  return instance;
}

Type type_of(DType dtype) { return dtype == DType::kF32 ? Type::f32 : Type::bf16; }

Desc desc_of(const ConstMatrix& m, bool transpose = false) {
  const dnnl::memory::dim stride = std::max<int64_t>(m.row_stride, m.columns);
  return transpose ? Desc({m.columns, m.rows}, type_of(m.dtype), dnnl::memory::dims{1, stride})
                   : Desc({m.rows, m.columns}, type_of(m.dtype), dnnl::memory::dims{stride, 1});
}

dnnl::memory memory_of(const Desc& desc, const void* data) {
  return dnnl::memory(desc, engine(), const_cast<void*>(data));
}

dnnl::primitive_attr sum_into_output(float beta) {
  dnnl::primitive_attr attr;
  dnnl::post_ops ops;
  if (beta != 0.0f) ops.append_sum(beta);
  attr.set_post_ops(ops);
  return attr;
}

}  // namespace

struct LinearWeights::State {
  int64_t in = 0;
  int64_t out = 0;
  DType precision = DType::kF32;
  DType stored = DType::kF32;
  std::vector<float> bias;
  std::vector<std::byte> bytes;
};

LinearWeights::LinearWeights(ConstMatrix weight, std::span<const float> bias, DType precision)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.in = weight.columns;
  s.out = weight.rows;
  s.precision = precision;
  s.stored = precision == DType::kBF16 && bf16_is_native() ? DType::kBF16 : DType::kF32;
  s.bias.assign(bias.begin(), bias.end());
  s.bytes.resize(static_cast<size_t>(s.in * s.out) * size_of(s.stored));
  const Matrix packed{s.bytes.data(), s.out, s.in, s.in, s.stored};
  cpu::convert(weight, packed);
  if (precision == DType::kBF16 && s.stored == DType::kF32) {
    for (int64_t i = 0; i < s.in * s.out; ++i) {
      float& value = packed.row<float>(0)[i];
      value = bf16_to_float(float_to_bf16(value));
    }
  }
}

LinearWeights::LinearWeights(LinearWeights&&) noexcept = default;
LinearWeights& LinearWeights::operator=(LinearWeights&&) noexcept = default;
LinearWeights::~LinearWeights() = default;

int64_t LinearWeights::in_features() const { return state_->in; }
int64_t LinearWeights::out_features() const { return state_->out; }
DType LinearWeights::precision() const { return state_->precision; }
size_t LinearWeights::bytes() const { return state_->bytes.size() + state_->bias.size() * sizeof(float); }

void LinearWeights::forward(ConstMatrix x, Matrix y, bool accumulate) const {
  const State& s = *state_;
  std::vector<std::byte> converted;
  if (x.dtype != s.stored) {
    converted.resize(static_cast<size_t>(x.rows * x.columns) * size_of(s.stored));
    const Matrix to{converted.data(), x.rows, x.columns, x.columns, s.stored};
    cpu::convert(x, to);
    x = to;
  }
  const ConstMatrix weight{s.bytes.data(), s.out, s.in, s.in, s.stored};
  const Desc bias({1, s.out}, Type::f32, Tag::ab);
  const auto description = s.bias.empty()
                               ? dnnl::matmul::desc(desc_of(x), desc_of(weight, true), desc_of(y))
                               : dnnl::matmul::desc(desc_of(x), desc_of(weight, true), bias, desc_of(y));
  const dnnl::matmul::primitive_desc primitive(description, sum_into_output(accumulate ? 1.0f : 0.0f), engine());
  std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, memory_of(desc_of(x), x.data)},
                                                  {DNNL_ARG_WEIGHTS, memory_of(desc_of(weight, true), weight.data)},
                                                  {DNNL_ARG_DST, memory_of(desc_of(y), y.data)}};
  if (!s.bias.empty()) arguments.emplace(DNNL_ARG_BIAS, memory_of(bias, s.bias.data()));
  dnnl::matmul(primitive).execute(stream(), arguments);
  stream().wait();
}

void gemm_f32(const GemmArgs& args) {
  const dnnl::matmul::primitive_desc primitive(
      dnnl::matmul::desc(desc_of(args.a, args.transpose_a), desc_of(args.b, args.transpose_b), desc_of(args.c)),
      sum_into_output(args.beta), engine());
  dnnl::matmul(primitive).execute(stream(),
                                  {{DNNL_ARG_SRC, memory_of(desc_of(args.a, args.transpose_a), args.a.data)},
                                   {DNNL_ARG_WEIGHTS, memory_of(desc_of(args.b, args.transpose_b), args.b.data)},
                                   {DNNL_ARG_DST, memory_of(desc_of(args.c), args.c.data)}});
  stream().wait();
}

}  // namespace scd::kernels::cpu
