#include "common/codec/raw_body.h"

namespace scd {

void RawBody::encode(kernels::ConstMatrix keys, kernels::ConstMatrix values, ByteBuffer& out) const {
  out.reserve(out.size() + max_bytes(keys.rows));
  for (const kernels::ConstMatrix* source : {&keys, &values}) {
    for (int64_t row = 0; row < source->rows; ++row) {
      append_bf16({source->row<float>(row), static_cast<size_t>(width_)}, out);
    }
  }
}

std::string RawBody::decode(std::span<const std::byte> body, kernels::Matrix keys, kernels::Matrix values) const {
  const size_t expected = max_bytes(keys.rows);
  if (body.size() != expected) return wrong_length(body.size(), expected);
  const auto count = static_cast<size_t>(keys.rows * width_);
  const bool keys_finite = read_bf16(body.first(count * 2), {keys.row<float>(0), count});
  const bool values_finite = read_bf16(body.subspan(count * 2), {values.row<float>(0), count});
  return keys_finite && values_finite ? "" : kNotFinite;
}

}  // namespace scd
