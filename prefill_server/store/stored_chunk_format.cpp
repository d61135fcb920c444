#include "prefill_server/store/stored_chunk_format.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/crc32c.h"
#include "common/codec/payload.h"

namespace scd {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie in memory");

constexpr std::array<char, 4> kMagic{'S', 'C', 'D', 'C'};
constexpr uint16_t kVersion = 1;
constexpr size_t kMostUnits = 4096;

struct Head {
  std::array<char, 4> magic = kMagic;
  uint16_t version = kVersion;
  uint16_t units = 0;
  Sha256Digest name{};
  int64_t first = 0;
  int64_t tokens = 0;
};
static_assert(sizeof(Head) == 56);

struct UnitHead {
  int32_t layer = 0;
  int32_t layers = 0;
  uint8_t level = 0;
  std::array<uint8_t, 3> zero{};
  uint32_t crc = 0;
  uint32_t bytes = 0;
};
static_assert(sizeof(UnitHead) == 20);

template <class T>
void append(const T& value, ByteBuffer& out) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <class T>
T take(std::span<const std::byte>& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes = bytes.subspan(sizeof value);
  return value;
}

Failure unsound(const std::string& what) { return {ErrorCode::kDataLoss, "a stored chunk: " + what}; }

}  // namespace

ByteBuffer stored_chunk_bytes(const Sha256Digest& name, const StoredChunk& chunk) {
  SCD_CHECK(chunk.units.size() <= kMostUnits, "units of a chunk");
  ByteBuffer out;
  out.reserve(sizeof(Head) + chunk.units.size() * sizeof(UnitHead) + chunk.bytes() + sizeof(uint32_t));
  append(Head{.units = static_cast<uint16_t>(chunk.units.size()),
              .name = name,
              .first = chunk.tokens.first,
              .tokens = chunk.tokens.count},
         out);
  for (const CodeUnit& unit : chunk.units) {
    append(UnitHead{.layer = unit.layer,
                    .layers = unit.layers,
                    .level = unit.level,
                    .crc = unit.crc,
                    .bytes = static_cast<uint32_t>(unit.payload.bytes.size())},
           out);
  }
  for (const CodeUnit& unit : chunk.units) {
    out.insert(out.end(), unit.payload.bytes.begin(), unit.payload.bytes.end());
  }
  append(crc32c(out), out);
  return out;
}

Result<std::shared_ptr<const StoredChunk>> read_stored_chunk(const Sha256Digest& name,
                                                             std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(Head) + sizeof(uint32_t)) return unsound("it is cut off");
  std::span<const std::byte> checksum = bytes.last(sizeof(uint32_t));
  bytes = bytes.first(bytes.size() - checksum.size());
  const bool intact = crc32c(bytes) == take<uint32_t>(checksum);
  const Head head = take<Head>(bytes);
  if (head.magic != kMagic || head.version != kVersion) return unsound("not one of this version");
  if (!intact) return unsound("its checksum differs");
  if (head.name != name) return unsound("it belongs to another prefix");
  if (head.first < 0 || head.first % kHandoverMultiple != 0 || head.tokens <= 0 || head.tokens > kMaxPayloadTokens ||
      head.tokens % kHandoverMultiple != 0 || head.first > INT32_MAX - head.tokens) {
    return unsound("tokens out of range");
  }
  if (head.units > kMostUnits || bytes.size() < head.units * sizeof(UnitHead)) return unsound("units out of range");
  auto chunk = std::make_shared<StoredChunk>(StoredChunk{{head.first, head.tokens}, {}});
  std::span<const std::byte> payloads = bytes.subspan(head.units * sizeof(UnitHead));
  for (uint16_t i = 0; i < head.units; ++i) {
    const auto unit = take<UnitHead>(bytes);
    if (unit.bytes > payloads.size()) return unsound("a payload is cut off");
    const auto payload = payloads.first(unit.bytes);
    if (crc32c(payload) != unit.crc) return unsound("a payload's checksum differs");
    chunk->units.push_back({.layer = unit.layer,
                            .layers = unit.layers,
                            .tokens = chunk->tokens,
                            .level = unit.level,
                            .crc = unit.crc,
                            .payload = SharedBytes::from(ByteBuffer(payload.begin(), payload.end()))});
    payloads = payloads.subspan(unit.bytes);
  }
  if (!payloads.empty()) return unsound("there are bytes behind its payloads");
  return std::shared_ptr<const StoredChunk>(std::move(chunk));
}

}  // namespace scd
