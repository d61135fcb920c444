// The bytes of one layer of one chunk: a block header of 8 bytes, then BF16 values (docs/wire_format.md, "Payloads").
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/base/error.h"
#include "common/codec/codec.h"

namespace scd {

enum class PayloadKind : uint8_t {
  kRaw = 1,
  kScdReuse = 2,
  kScdPatch = 3,
  kInt8 = 4,
  kInt4 = 5,
  kLossless = 6,
  kRd = 7,
  kResidual = 8,
  kLoraDelta = 9
};
inline constexpr PayloadKind kLastPayloadKind = PayloadKind::kLoraDelta;

inline constexpr uint8_t kPayloadVersion = 2;
inline constexpr size_t kPayloadHeaderBytes = 8;
inline constexpr int64_t kMaxPayloadTokens = 4096;

struct PayloadHeader {
  PayloadKind kind = PayloadKind::kRaw;
  uint16_t tokens = 0;
  uint16_t first_rank = 0;   // Reuse, LoRA delta: of keys; Patch: of the hidden state; rd: components; others: 0
  uint16_t second_rank = 0;  // Reuse, LoRA delta: of values; rd: level; else 0
  bool operator==(const PayloadHeader&) const = default;
};

void append_payload_header(const PayloadHeader& header, ByteBuffer& out);

// Where a payload says it belongs, for messages: "payload of layer 3, tokens [128, 256): ...".
Failure payload_failure(const PayloadPlace& place, const std::string& what);

// "12 bytes, not 16"
std::string wrong_length(size_t bytes, size_t expected);

// Checks length, version, kind and that the token count is the place's. The caller checks ranks and the body's length.
Result<PayloadHeader> read_payload_header(const PayloadPlace& place, std::span<const std::byte> payload);

// Appends `values` rounded to BF16, little-endian.
void append_bf16(std::span<const float> values, ByteBuffer& out);

// Reads out.size() BF16 values from bytes of exactly that length, of any alignment. False when one is not finite.
[[nodiscard]] bool read_bf16(std::span<const std::byte> bytes, std::span<float> out);

// The same without a change of type.
[[nodiscard]] bool copy_bf16(std::span<const std::byte> bytes, std::byte* out);

}  // namespace scd
