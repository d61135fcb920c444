// `raw`: keys as the producer rotated them, then values, in BF16. Exact to the bit for BF16 caches of models that
// rotate alike.
#pragma once

#include "common/codec/plain_codec.h"

namespace scd {

inline constexpr const char* kNotFinite = "a value is not finite";

class RawBody final : public PlainBody {
 public:
  explicit RawBody(int64_t kv_width) : width_(kv_width) {}

  std::string_view name() const override { return "raw"; }
  PayloadKind kind() const override { return PayloadKind::kRaw; }
  bool codes_unrotated_keys() const override { return false; }
  size_t max_bytes(int64_t tokens) const override { return static_cast<size_t>(tokens * width_) * 4; }
  void encode(kernels::ConstMatrix keys, kernels::ConstMatrix values, ByteBuffer& out) const override;
  std::string decode(std::span<const std::byte> body, kernels::Matrix keys, kernels::Matrix values) const override;

 private:
  int64_t width_;
};

}  // namespace scd
