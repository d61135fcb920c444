// Payloads of rd read on a GPU, many at once: which go into one block, and their codes there.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/codec/codec.h"
#include "common/codec/rd/rd_on_device.h"
#include "common/codec/rd/rd_quantiser.h"

namespace scd {

// What a payload's header says, checked, and what follows it.
struct RdBody {
  size_t unit = 0;
  int32_t level = 0;
  int64_t components = 0;
  std::span<const std::byte> body;
};

// bodies: of the payloads. Blocks are CodeBlock::codes of type RdDecoderOnDevice::Block. DATA_LOSS names the payload
// that is not sound.
Result<std::unique_ptr<PendingBlocks>> begin_rd_blocks(const RdDecoderOnDevice& decoder, const RdQuantiser& quantiser,
                                                       std::span<const Payload> payloads,
                                                       std::span<const RdBody> bodies);

}  // namespace scd
