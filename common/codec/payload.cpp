#include "common/codec/payload.h"

#include <bit>
#include <cstring>
#include <limits>

namespace scd {

static_assert(std::endian::native == std::endian::little, "payloads are little-endian");

namespace {

void append_u16(uint16_t value, ByteBuffer& out) {
  out.push_back(static_cast<std::byte>(value & 0xFF));
  out.push_back(static_cast<std::byte>(value >> 8));
}

uint16_t read_u16(std::span<const std::byte> bytes, size_t at) {
  return static_cast<uint16_t>(static_cast<uint16_t>(bytes[at]) | static_cast<uint16_t>(bytes[at + 1]) << 8);
}

}  // namespace

void append_payload_header(const PayloadHeader& header, ByteBuffer& out) {
  out.push_back(static_cast<std::byte>(header.kind));
  out.push_back(static_cast<std::byte>(kPayloadVersion));
  append_u16(header.tokens, out);
  append_u16(header.first_rank, out);
  append_u16(header.second_rank, out);
}

Failure payload_failure(const PayloadPlace& place, const std::string& what) {
  return {ErrorCode::kDataLoss, "payload of layer " + std::to_string(place.layer) + ", tokens [" +
                                    std::to_string(place.first_position) + ", " +
                                    std::to_string(place.first_position + place.tokens) + "): " + what};
}

std::string wrong_length(size_t bytes, size_t expected) {
  return std::to_string(bytes) + " bytes, not " + std::to_string(expected);
}

Result<PayloadHeader> read_payload_header(const PayloadPlace& place, std::span<const std::byte> payload) {
  if (place.tokens < 1 || place.tokens > kMaxPayloadTokens) {
    return payload_failure(
        place, std::to_string(place.tokens) + " tokens; a payload holds 1 to " + std::to_string(kMaxPayloadTokens));
  }
  if (place.first_position < 0 || place.first_position > std::numeric_limits<int32_t>::max() - place.tokens) {
    return payload_failure(place, "positions out of range");
  }
  if (payload.size() < kPayloadHeaderBytes) {
    return payload_failure(place, std::to_string(payload.size()) + " bytes, shorter than its header");
  }
  const auto kind = static_cast<uint8_t>(payload[0]);
  const auto version = static_cast<uint8_t>(payload[1]);
  if (version != kPayloadVersion) {
    return payload_failure(
        place, "version " + std::to_string(version) + "; this build reads version " + std::to_string(kPayloadVersion));
  }
  if (kind < static_cast<uint8_t>(PayloadKind::kRaw) || kind > static_cast<uint8_t>(kLastPayloadKind)) {
    return payload_failure(place, "unknown kind " + std::to_string(kind));
  }
  const PayloadHeader header{static_cast<PayloadKind>(kind), read_u16(payload, 2), read_u16(payload, 4),
                             read_u16(payload, 6)};
  if (header.tokens != place.tokens) {
    return payload_failure(place, "its header says " + std::to_string(header.tokens) + " tokens");
  }
  return header;
}

void append_bf16(std::span<const float> values, ByteBuffer& out) {
  const size_t start = out.size();
  out.resize(start + values.size() * 2);
  std::byte* target = out.data() + start;
  for (size_t i = 0; i < values.size(); ++i) {
    // Round to nearest, ties to even, in integers so that the loop vectorises; NaN keeps its quiet bit.
    const auto bits = std::bit_cast<uint32_t>(values[i]);
    const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40U;
    const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
    const auto half = static_cast<uint16_t>(is_nan ? quiet : rounded);
    std::memcpy(target + 2 * i, &half, sizeof half);
  }
}

bool read_bf16(std::span<const std::byte> bytes, std::span<float> out) {
  SCD_CHECK(bytes.size() == out.size() * 2, "BF16 values and their bytes");
  uint32_t not_finite = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, bytes.data() + 2 * i, sizeof half);
    not_finite |= static_cast<uint32_t>((half & 0x7F80U) == 0x7F80U);
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
  return not_finite == 0;
}

bool copy_bf16(std::span<const std::byte> bytes, std::byte* out) {
  SCD_CHECK(bytes.size() % 2 == 0, "whole BF16 values");
  uint16_t not_finite = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    uint16_t half;
    std::memcpy(&half, bytes.data() + i, sizeof half);
    not_finite |= static_cast<uint16_t>((half & 0x7F80U) == 0x7F80U);
    std::memcpy(out + i, &half, sizeof half);
  }
  return not_finite == 0;
}

}  // namespace scd
