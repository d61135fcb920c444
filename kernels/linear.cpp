#include "kernels/linear.h"

#include "kernels/cpu_level.h"
#include "kernels/device.h"
#include "kernels/dispatch.h"
#include "kernels/elementwise.h"
#include "kernels/linear_cpu.h"
#include "kernels/linear_rows.h"
#include "kernels/require.h"

namespace scd::kernels {

// Weights of one device.
struct PackedLinear::Packed {
  virtual ~Packed() = default;
  virtual int64_t in_features() const = 0;
  virtual int64_t out_features() const = 0;
  virtual DType precision() const = 0;
  virtual size_t bytes() const = 0;
  virtual void forward(ConstMatrix x, Matrix y, bool accumulate) const = 0;
  Device device = Device::kCpu;
};

namespace {

template <class Weights, class Packed>
class PackedOn final : public Packed {
 public:
  PackedOn(Weights weights, Device where) : weights_(std::move(weights)) { this->device = where; }
  int64_t in_features() const override { return weights_.in_features(); }
  int64_t out_features() const override { return weights_.out_features(); }
  DType precision() const override { return weights_.precision(); }
  size_t bytes() const override { return weights_.bytes(); }
  void forward(ConstMatrix x, Matrix y, bool accumulate) const override { weights_.forward(x, y, accumulate); }

 private:
  Weights weights_;
};

}  // namespace

PackedLinear::PackedLinear(ConstMatrix weight, std::span<const float> bias, DType precision,
                           const Placement& placement) {
  const Device device = placement.device();
  require_device_in_build(device);
  require(weight.device == device || weight.device == Device::kCpu, "linear: the weight on ", weight.device,
          " cannot be packed for ", device);
  require_matrix(weight, "the weight of a linear layer");
  require(weight.rows > 0 && weight.columns > 0, "linear: the weight ", weight, " is empty");
  require(precision != DType::kF16, "linear: the precision must be F32 or BF16");
  require(bias.empty() || static_cast<int64_t>(bias.size()) == weight.rows,
          "linear: ", static_cast<int64_t>(bias.size()), " bias values for the weight ", weight);
#ifdef SCD_CUDA
  if (device == Device::kGpu) {
    using OnCuda = PackedOn<cuda::LinearWeights, Packed>;
    packed_ = std::make_unique<OnCuda>(cuda::LinearWeights(weight, bias, precision, placement), device);
    return;
  }
#endif
  using OnCpu = PackedOn<cpu::LinearWeights, Packed>;
  packed_ = std::make_unique<OnCpu>(cpu::LinearWeights(weight, bias, precision), device);
}

PackedLinear::PackedLinear(std::unique_ptr<Packed> packed) : packed_(std::move(packed)) {}

PackedLinear PackedLinear::over([[maybe_unused]] DeviceBuffer weight, [[maybe_unused]] int64_t out_features,
                                [[maybe_unused]] int64_t in_features, [[maybe_unused]] DType precision) {
  require_device_in_build(Device::kGpu);
  require(weight.device() == Device::kGpu &&
              weight.size() == static_cast<size_t>(out_features * in_features) * size_of(precision),
          "linear: ", static_cast<int64_t>(weight.size()), " bytes on ", weight.device(), " are no weight [",
          out_features, ", ", in_features, "]");
#ifdef SCD_CUDA
  using OnCuda = PackedOn<cuda::LinearWeights, Packed>;
  return PackedLinear(std::make_unique<OnCuda>(
      cuda::LinearWeights(std::move(weight), out_features, in_features, precision), Device::kGpu));
#else
  return PackedLinear(nullptr);
#endif
}

std::vector<size_t> PackedLinear::buffer_sizes(int64_t in_features, int64_t out_features, bool bias, DType precision) {
  const auto outputs = static_cast<size_t>(out_features);
  std::vector<size_t> sizes{static_cast<size_t>(in_features) * outputs * size_of(precision)};
  if (bias) sizes.push_back(outputs * sizeof(float));
  if (bias && precision == DType::kBF16) sizes.push_back(outputs * size_of(DType::kBF16));
  return sizes;
}

PackedLinear::PackedLinear(PackedLinear&&) noexcept = default;
PackedLinear& PackedLinear::operator=(PackedLinear&&) noexcept = default;
PackedLinear::~PackedLinear() = default;

int64_t PackedLinear::in_features() const { return packed_->in_features(); }
int64_t PackedLinear::out_features() const { return packed_->out_features(); }
DType PackedLinear::precision() const { return packed_->precision(); }
Device PackedLinear::device() const { return packed_->device; }
size_t PackedLinear::packed_bytes() const { return packed_->bytes(); }

void PackedLinear::forward(ConstMatrix x, Matrix y, bool accumulate) const {
  require_on(device(), x, "the input of a linear layer");
  require_on(device(), y, "the output of a linear layer");
  const bool columns_fit =
      x.columns == in_features() || (device() == Device::kCpu && x.columns > 0 && x.columns < in_features());
  require(x.dtype != DType::kF16 && columns_fit, "linear: the input ", x, " must be F32 or BF16 with ", in_features(),
          " columns");
  require(y.dtype != DType::kF16 && y.columns == out_features() && y.rows == x.rows, "linear: the output ", y,
          " of the input ", x, " must be F32 or BF16 with ", out_features(), " columns");
  require(!accumulate || y.dtype == DType::kF32, "linear: only an F32 output can be accumulated into, not ", y);
  if (x.rows == 0) return;
  packed_->forward(x, y, accumulate);
}

std::string linear_backend(Device device) {
  if (device == Device::kGpu) return gpu_device().name;
  switch (cpu_level()) {
    case CpuLevel::kAmx: return "avx512_bf16+amx";
    case CpuLevel::kAvx512Bf16: return "avx512_bf16";
    default: return "fp32";
  }
}

bool bf16_is_native() { return cpu_level() >= CpuLevel::kAvx512Bf16; }

DType native_precision(Device device) {
  return device == Device::kGpu || bf16_is_native() ? DType::kBF16 : DType::kF32;
}

void gemm_f32(const GemmArgs& args) {
  require_on(args.c.device, args.a, "a of gemm_f32");
  require_on(args.c.device, args.b, "b of gemm_f32");
  require_matrix(args.c, "c of gemm_f32");
  const int64_t m = args.transpose_a ? args.a.columns : args.a.rows;
  const int64_t k = args.transpose_a ? args.a.rows : args.a.columns;
  const int64_t k_of_b = args.transpose_b ? args.b.columns : args.b.rows;
  const int64_t n = args.transpose_b ? args.b.rows : args.b.columns;
  const bool narrow = args.c.device == Device::kGpu && args.a.dtype == DType::kBF16 && args.b.dtype == DType::kBF16;
  require(args.c.dtype == DType::kF32 && (narrow || (args.a.dtype == DType::kF32 && args.b.dtype == DType::kF32)),
          "gemm_f32: a ", args.a, ", b ", args.b, " and c ", args.c, " must be F32");
  require(k == k_of_b && args.c.rows == m && args.c.columns == n, "gemm_f32: op(a) [", m, ", ", k, "], op(b) [", k_of_b,
          ", ", n, "] and c ", args.c, " do not fit");
  require(args.bias.empty() || static_cast<int64_t>(args.bias.size()) == n,
          "gemm_f32: ", static_cast<int64_t>(args.bias.size()), " bias values for c ", args.c);
  if (m == 0 || n == 0) return;
  require(k > 0, "gemm_f32: an empty sum for c ", args.c);
  SCD_DISPATCH(args.c.device, gemm_f32(args));
}

}  // namespace scd::kernels
