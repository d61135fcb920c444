// y = x W^T + b: the one place where GEMMs happen.
// BF16 weights and inputs accumulate in FP32 (on the CPU kernels of our own and sgemm.h, on CUDA cuBLASLt and a
// matrix-vector kernel of our own for few rows); FP32 weights run in FP32. What bounds it: the GEMM peak for many rows,
// memory bandwidth for few.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/matrix.h"

namespace scd::kernels {

// Bytes that cuBLASLt may work in, for each thread that multiplies on a GPU.
inline constexpr size_t kProductWorkspace = size_t{32} << 20;

// A weight matrix packed once for the chosen precision. Move-only; forward() is const and may be called from one
// thread at a time (it uses the process's OpenMP threads and a scratch of its own).
class PackedLinear {
 public:
  // weight [out_features, in_features], any dtype, on the host or on `device`; bias empty or [out_features], on the
  // host. precision kF32 or kBF16: what the weight is stored and multiplied in. placement: where it is kept and
  // multiplied; an arena on a GPU only.
  PackedLinear(ConstMatrix weight, std::span<const float> bias, DType precision,
               const Placement& placement = Device::kCpu);
  // Without a bias, over a weight [out_features, in_features] that is on a GPU in this precision.
  static PackedLinear over(DeviceBuffer weight, int64_t out_features, int64_t in_features, DType precision);
  // Bytes of each buffer that such a layer takes on a GPU.
  static std::vector<size_t> buffer_sizes(int64_t in_features, int64_t out_features, bool bias, DType precision);
  PackedLinear(PackedLinear&&) noexcept;
  PackedLinear& operator=(PackedLinear&&) noexcept;
  ~PackedLinear();

  int64_t in_features() const;
  int64_t out_features() const;
  DType precision() const;
  Device device() const;
  size_t packed_bytes() const;  // memory held, padding included

  // x [rows, in_features] F32 or BF16 (an F32 x is rounded to BF16 when precision is BF16); y [rows, out_features] F32
  // or BF16, both on device(). On the CPU x may have fewer columns: the others count as zeros and cost nothing.
  // accumulate: y += instead of y = (F32 y only).
  void forward(ConstMatrix x, Matrix y, bool accumulate = false) const;

 private:
  struct Packed;
  explicit PackedLinear(std::unique_ptr<Packed> packed);
  std::unique_ptr<Packed> packed_;
};

// What multiplies, logged at start. Of the CPU "avx512_bf16+amx", "avx512_bf16" or "fp32"; of CUDA the GPU's name.
std::string linear_backend(Device device = Device::kCpu);
// True where BF16 multiplies in hardware: the default precision of a daemon on this machine.
bool bf16_is_native();
// What `precision: auto` means: BF16 where the device multiplies it, FP32 elsewhere.
DType native_precision(Device device = Device::kCpu);

// c = a b (+ beta c) (+ bias), all F32 on one device, row-major, op(a) [m, k], op(b) [k, n]; for calibration and codec
// transforms whose operand changes at every call. CUDA multiplies on tensor cores, which round F32 to TF32 (10 bits of
// mantissa); there a and b may both be BF16.
struct GemmArgs {
  ConstMatrix a;
  ConstMatrix b;
  Matrix c;
  bool transpose_a = false;
  bool transpose_b = false;
  float beta = 0.0f;
  std::span<const float> bias = {};  // [n], added to every row of c; on its device
};
void gemm_f32(const GemmArgs& args);

}  // namespace scd::kernels
