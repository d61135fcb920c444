// `int8` and `int4`: uniform quantisation along the axes of KIVI (arXiv:2402.02750), keys per channel, values per
// token, each group with a base and a step in FP16. Keys are taken before RoPE, where a channel's range is narrowest.
#pragma once

#include "common/codec/plain_codec.h"

namespace scd {

class IntegerBody final : public PlainBody {
 public:
  static constexpr int64_t kGroupTokens = 64;  // of a key channel; a value's group is one token of one head

  // bits: 8 or 4
  IntegerBody(int bits, int64_t kv_heads, int64_t head_dim);

  std::string_view name() const override { return bits_ == 8 ? "int8" : "int4"; }
  PayloadKind kind() const override { return bits_ == 8 ? PayloadKind::kInt8 : PayloadKind::kInt4; }
  bool codes_unrotated_keys() const override { return true; }
  size_t max_bytes(int64_t tokens) const override;
  void encode(kernels::ConstMatrix keys, kernels::ConstMatrix values, ByteBuffer& out) const override;
  std::string decode(std::span<const std::byte> body, kernels::Matrix keys, kernels::Matrix values) const override;

 private:
  int bits_;
  int64_t heads_;
  int64_t head_dim_;
};

}  // namespace scd
