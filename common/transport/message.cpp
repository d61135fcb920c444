#include "common/transport/message.h"

#include <bit>
#include <cstring>
#include <string>

#include "common/base/crc32c.h"

namespace scd {
namespace {

static_assert(std::endian::native == std::endian::little, "the wire format is little-endian and copied as it lies");

// Byte offsets of version 1 (docs/wire_format.md).
constexpr size_t kMagicAt = 0;
constexpr size_t kVersionAt = 4;
constexpr size_t kFlagsAt = 6;
constexpr size_t kRequestAt = 8;
constexpr size_t kGenerationAt = 16;
constexpr size_t kCodecAt = 20;
constexpr size_t kLevelAt = 21;
constexpr size_t kDtypeAt = 22;
constexpr size_t kReservedAt = 23;
constexpr size_t kTokenAt = 24;
constexpr size_t kEncoderAt = 40;
constexpr size_t kFirstLayerAt = 48;
constexpr size_t kLayerCountAt = 50;
constexpr size_t kSequenceAt = 52;
constexpr size_t kFirstTokenAt = 56;
constexpr size_t kTokenCountAt = 60;
constexpr size_t kPayloadBytesAt = 64;
constexpr size_t kPayloadCrcAt = 72;
constexpr size_t kHeaderCrcAt = 76;
static_assert(kHeaderCrcAt + sizeof(uint32_t) == kMessageHeaderBytes);

template <class T>
void put(HeaderBytes& bytes, size_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

template <class T>
void get(std::span<const std::byte> bytes, size_t at, T& value) {
  std::memcpy(&value, bytes.data() + at, sizeof value);
}

template <class T>
T get(std::span<const std::byte> bytes, size_t at) {
  T value;
  get(bytes, at, value);
  return value;
}

MessageHeader read_fields(std::span<const std::byte> bytes) {
  MessageHeader header;
  get(bytes, kFlagsAt, header.flags);
  get(bytes, kRequestAt, header.request_id);
  get(bytes, kGenerationAt, header.generation);
  get(bytes, kCodecAt, header.codec_id);
  get(bytes, kLevelAt, header.level);
  get(bytes, kDtypeAt, header.dtype);
  get(bytes, kTokenAt, header.token);
  get(bytes, kEncoderAt, header.encoder_id);
  get(bytes, kFirstLayerAt, header.first_layer);
  get(bytes, kLayerCountAt, header.layer_count);
  get(bytes, kSequenceAt, header.sequence);
  get(bytes, kFirstTokenAt, header.first_token);
  get(bytes, kTokenCountAt, header.token_count);
  get(bytes, kPayloadBytesAt, header.payload_bytes);
  get(bytes, kPayloadCrcAt, header.payload_crc);
  return header;
}

}  // namespace

std::string_view to_string(RejectReason reason) {
  switch (reason) {
    case RejectReason::kNone: return "none";
    case RejectReason::kTruncatedHeader: return "truncated_header";
    case RejectReason::kBadMagic: return "bad_magic";
    case RejectReason::kUnknownVersion: return "unknown_version";
    case RejectReason::kUnknownFlags: return "unknown_flags";
    case RejectReason::kHeaderCrc: return "header_crc";
    case RejectReason::kOversizedPayload: return "oversized_payload";
    case RejectReason::kPayloadSizeMismatch: return "payload_size_mismatch";
    case RejectReason::kUnknownLease: return "unknown_lease";
    case RejectReason::kWrongToken: return "wrong_token";
    case RejectReason::kDeadGeneration: return "dead_generation";
    case RejectReason::kNoCredit: return "no_credit";
  }
  return "unknown";
}

bool is_protocol_violation(RejectReason reason) {
  return reason >= RejectReason::kTruncatedHeader && reason <= RejectReason::kPayloadSizeMismatch;
}

HeaderBytes serialize(const MessageHeader& header) {
  HeaderBytes bytes{};
  put(bytes, kMagicAt, kMessageMagic);
  put(bytes, kVersionAt, kMessageVersion);
  put(bytes, kFlagsAt, header.flags);
  put(bytes, kRequestAt, header.request_id);
  put(bytes, kGenerationAt, header.generation);
  put(bytes, kCodecAt, header.codec_id);
  put(bytes, kLevelAt, header.level);
  put(bytes, kDtypeAt, header.dtype);
  put(bytes, kTokenAt, header.token);
  put(bytes, kEncoderAt, header.encoder_id);
  put(bytes, kFirstLayerAt, header.first_layer);
  put(bytes, kLayerCountAt, header.layer_count);
  put(bytes, kSequenceAt, header.sequence);
  put(bytes, kFirstTokenAt, header.first_token);
  put(bytes, kTokenCountAt, header.token_count);
  put(bytes, kPayloadBytesAt, header.payload_bytes);
  put(bytes, kPayloadCrcAt, header.payload_crc);
  put(bytes, kHeaderCrcAt, crc32c(std::span(bytes).first(kHeaderCrcAt)));
  return bytes;
}

RejectReason read_header(std::span<const std::byte> bytes, uint64_t payload_limit, MessageHeader& header) {
  // Magic and version come first: a later version may well have another length and another checksum.
  if (bytes.size() < kFlagsAt) return RejectReason::kTruncatedHeader;
  if (get<uint32_t>(bytes, kMagicAt) != kMessageMagic) return RejectReason::kBadMagic;
  if (get<uint16_t>(bytes, kVersionAt) != kMessageVersion) return RejectReason::kUnknownVersion;
  if (bytes.size() != kMessageHeaderBytes) return RejectReason::kTruncatedHeader;
  if (get<uint32_t>(bytes, kHeaderCrcAt) != crc32c(bytes.first(kHeaderCrcAt))) return RejectReason::kHeaderCrc;
  const MessageHeader fields = read_fields(bytes);
  if ((fields.flags & ~kKnownFlags) != 0 || bytes[kReservedAt] != std::byte{0}) return RejectReason::kUnknownFlags;
  if (fields.payload_bytes > payload_limit) return RejectReason::kOversizedPayload;
  header = fields;
  return RejectReason::kNone;
}

Result<MessageHeader> parse(std::span<const std::byte> bytes, uint64_t payload_limit) {
  MessageHeader header;
  const RejectReason reason = read_header(bytes, payload_limit, header);
  if (reason == RejectReason::kNone) return header;
  const ErrorCode code = reason == RejectReason::kHeaderCrc ? ErrorCode::kDataLoss : ErrorCode::kInvalidArgument;
  return Failure{
      code, "message header of " + std::to_string(bytes.size()) + " bytes refused: " + std::string(to_string(reason))};
}

}  // namespace scd
