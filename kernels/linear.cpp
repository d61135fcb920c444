#include "kernels/linear.h"

#include "kernels/cpu_level.h"
#include "kernels/linear_cpu.h"
#include "kernels/linear_rows.h"
#include "kernels/require.h"

namespace scd::kernels {

struct PackedLinear::Packed {
  cpu::LinearWeights weights;
};

PackedLinear::PackedLinear(ConstMatrix weight, std::span<const float> bias, DType precision) {
  require_cpu(weight, "the weight of a linear layer");
  require(weight.rows > 0 && weight.columns > 0, "linear: the weight ", weight, " is empty");
  require(precision != DType::kF16, "linear: the precision must be F32 or BF16");
  require(bias.empty() || static_cast<int64_t>(bias.size()) == weight.rows,
          "linear: ", static_cast<int64_t>(bias.size()), " bias values for the weight ", weight);
  packed_ = std::make_unique<Packed>(Packed{cpu::LinearWeights(weight, bias, precision)});
}

PackedLinear::PackedLinear(PackedLinear&&) noexcept = default;
PackedLinear& PackedLinear::operator=(PackedLinear&&) noexcept = default;
PackedLinear::~PackedLinear() = default;

int64_t PackedLinear::in_features() const { return packed_->weights.in_features(); }
int64_t PackedLinear::out_features() const { return packed_->weights.out_features(); }
DType PackedLinear::precision() const { return packed_->weights.precision(); }
size_t PackedLinear::packed_bytes() const { return packed_->weights.bytes(); }

void PackedLinear::forward(ConstMatrix x, Matrix y, bool accumulate) const {
  require_cpu(x, "the input of a linear layer");
  require_cpu(y, "the output of a linear layer");
  require(x.dtype != DType::kF16 && x.columns == in_features(), "linear: the input ", x, " must be F32 or BF16 with ",
          in_features(), " columns");
  require(y.dtype != DType::kF16 && y.columns == out_features() && y.rows == x.rows, "linear: the output ", y,
          " of the input ", x, " must be F32 or BF16 with ", out_features(), " columns");
  require(!accumulate || y.dtype == DType::kF32, "linear: only an F32 output can be accumulated into, not ", y);
  if (x.rows == 0) return;
  packed_->weights.forward(x, y, accumulate);
}

std::string linear_backend() {
  switch (cpu_level()) {
    case CpuLevel::kAmx: return "avx512_bf16+amx";
    case CpuLevel::kAvx512Bf16: return "avx512_bf16";
    default: return "fp32";
  }
}

bool bf16_is_native() { return cpu_level() >= CpuLevel::kAvx512Bf16; }

DType native_precision() { return bf16_is_native() ? DType::kBF16 : DType::kF32; }

void gemm_f32(const GemmArgs& args) {
  require_cpu(args.a, "a of gemm_f32");
  require_cpu(args.b, "b of gemm_f32");
  require_cpu(args.c, "c of gemm_f32");
  const int64_t m = args.transpose_a ? args.a.columns : args.a.rows;
  const int64_t k = args.transpose_a ? args.a.rows : args.a.columns;
  const int64_t k_of_b = args.transpose_b ? args.b.columns : args.b.rows;
  const int64_t n = args.transpose_b ? args.b.rows : args.b.columns;
  require(args.a.dtype == DType::kF32 && args.b.dtype == DType::kF32 && args.c.dtype == DType::kF32, "gemm_f32: a ",
          args.a, ", b ", args.b, " and c ", args.c, " must be F32");
  require(k == k_of_b && args.c.rows == m && args.c.columns == n, "gemm_f32: op(a) [", m, ", ", k, "], op(b) [", k_of_b,
          ", ", n, "] and c ", args.c, " do not fit");
  if (m == 0 || n == 0) return;
  require(k > 0, "gemm_f32: an empty sum for c ", args.c);
  cpu::gemm_f32(args);
}

}  // namespace scd::kernels
