// The header that precedes every payload on the data plane: 80 little-endian bytes, described field by field in
// docs/wire_format.md. The transport reads what it needs to place bytes safely (lease, bounds, CRC); codec, level,
// layers and tokens are carried for the receiver and not interpreted here.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/base/error.h"

namespace scd {

// Random per request; who knows it may write into the request's lease.
using TransferToken = std::array<uint8_t, 16>;
// First 8 bytes of the SHA-256 that names the encoder part of the codec artifact.
using EncoderId = std::array<uint8_t, 8>;

inline constexpr uint32_t kMessageMagic = 0x4D444353;  // "SCDM" as bytes on the wire
inline constexpr uint16_t kMessageVersion = 1;
inline constexpr size_t kMessageHeaderBytes = 80;

// Bits of MessageHeader::flags. A receiver refuses bits it does not know.
inline constexpr uint16_t kFlagLastOfRequest = 1U << 0;
inline constexpr uint16_t kKnownFlags = kFlagLastOfRequest;

struct MessageHeader {
  uint16_t flags = 0;
  uint64_t request_id = 0;
  uint32_t generation = 0;  // grows when a request is tried again; older ones are dead
  TransferToken token{};
  EncoderId encoder_id{};
  uint8_t codec_id = 0;
  uint8_t level = 0;
  uint8_t dtype = 0;         // element type of uncoded payloads, see docs/wire_format.md
  uint16_t first_layer = 0;  // of the consumer: names the unit
  uint16_t layer_count = 0;
  uint32_t sequence = 0;  // counts the request's messages from 0; chunk_done names it
  uint32_t first_token = 0;
  uint32_t token_count = 0;
  uint64_t payload_bytes = 0;
  uint32_t payload_crc = 0;  // CRC-32C of the payload, made where it is encoded

  bool operator==(const MessageHeader&) const = default;
};

// Why an arriving message was not accepted. StagingCounters counts them by reason.
enum class RejectReason : uint8_t {
  kNone,
  kTruncatedHeader,
  kBadMagic,
  kUnknownVersion,
  kUnknownFlags,  // or a reserved byte that is not zero
  kHeaderCrc,
  kOversizedPayload,     // more than a staging slot holds
  kPayloadSizeMismatch,  // the transport carried another number of bytes than the header says
  kUnknownLease,
  kWrongToken,
  kDeadGeneration,  // the lease was closed, or replaced by a later generation
  kNoCredit,        // the sender sent more messages than the lease has slots
};
inline constexpr size_t kRejectReasons = 12;
std::string_view to_string(RejectReason reason);  // "dead_generation", ...: stable, used as a metric label

// Whether the reason says that the peer does not speak this protocol, so that its connection is closed.
bool is_protocol_violation(RejectReason reason);

using HeaderBytes = std::array<std::byte, kMessageHeaderBytes>;

// Fills magic, version and header_crc.
HeaderBytes serialize(const MessageHeader& header);

// Reads and checks a header; kNone and `header` filled when it is sound. payload_limit: largest payload_bytes allowed.
RejectReason read_header(std::span<const std::byte> bytes, uint64_t payload_limit, MessageHeader& header);

// The same as a Result: INVALID_ARGUMENT, or DATA_LOSS for a wrong CRC.
Result<MessageHeader> parse(std::span<const std::byte> bytes, uint64_t payload_limit);

}  // namespace scd
