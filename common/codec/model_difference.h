// Saying in words how two models differ.
#pragma once

#include <string>
#include <string_view>

#include "common/codec/codec_model.h"

namespace scd {

// Throws Error kFailedPrecondition such as "codec raw: producer has 8 KV heads, consumer 4" when codes of one cannot
// become a cache of the other.
void require_same_kv_shape(const CodecModel& producer, const CodecModel& consumer, std::string_view who);

}  // namespace scd
