// The server's words in protobuf.
#pragma once

#include <cstdint>
#include <string>

#include "decode_server/completion.h"
#include "scd/v1/completion.pb.h"

namespace scd {

std::string request_id_text(uint64_t id);  // 16 hex digits

v1::CodecChoice to_proto(const std::optional<CodecChoice>& codec);
v1::PromptInfo to_proto(const PromptInfo& info, uint64_t request_id, const std::string& model);
v1::TokenLogprobs to_proto(const PositionLogprobs& logprobs);
v1::Delta to_proto(const CompletionDelta& delta);
v1::Finish to_proto(const CompletionEnd& end);

}  // namespace scd
