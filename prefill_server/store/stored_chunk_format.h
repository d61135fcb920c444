// A stored chunk as bytes, for stores outside the process. All numbers little-endian:
//   "SCDC" | u16 version | u16 units | name[32] | i64 first token | i64 tokens |
//   per unit: i32 layer | i32 layers | u8 level | u8[3] 0 | u32 CRC of the payload | u32 bytes |
//   the payloads, one after the other | u32 CRC-32C of all before it
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "common/base/byte_buffer.h"
#include "common/base/error.h"
#include "common/base/sha256.h"
#include "prefill_server/handover.h"

namespace scd {

ByteBuffer stored_chunk_bytes(const Sha256Digest& name, const StoredChunk& chunk);

// Untrusted bytes. DATA_LOSS says what is wrong; they must be of the name that was asked for and be nothing else.
Result<std::shared_ptr<const StoredChunk>> read_stored_chunk(const Sha256Digest& name,
                                                             std::span<const std::byte> bytes);

}  // namespace scd
