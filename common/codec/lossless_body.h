// `lossless`: the bits of `raw` in fewer bytes. A BF16 number's exponent is nearly always one of a dozen values, so
// exponents are entropy-coded; sign and mantissa are noise and stay as they are.
#pragma once

#include "common/codec/plain_codec.h"

namespace scd {

class LosslessBody final : public PlainBody {
 public:
  explicit LosslessBody(int64_t kv_width) : width_(kv_width) {}

  std::string_view name() const override { return "lossless"; }
  PayloadKind kind() const override { return PayloadKind::kLossless; }
  bool codes_unrotated_keys() const override { return false; }
  size_t max_bytes(int64_t tokens) const override;
  void encode(kernels::ConstMatrix keys, kernels::ConstMatrix values, ByteBuffer& out) const override;
  std::string decode(std::span<const std::byte> body, kernels::Matrix keys, kernels::Matrix values) const override;

 private:
  int64_t width_;
};

}  // namespace scd
