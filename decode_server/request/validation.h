// A request as it came from outside becomes one that every stage may rely on, or an error that names the field.
#pragma once

#include <optional>

#include "common/base/error.h"
#include "common/codec/codec.h"
#include "decode_server/completion.h"
#include "decode_server/validation_context.h"
#include "scd/v1/completion.pb.h"

namespace scd {

// What is asked of prefill servers when a request says nothing; nothing where the configuration is `oracle` or
// `auto`.
std::optional<CodecId> configured_codec(const CodecOptions& options);

// Fills everything but the prompt. INVALID_ARGUMENT says field, value and what would be right; UNIMPLEMENTED for n > 1;
// FAILED_PRECONDITION for a codec this server is not set up for. Cheap: no tokenising, and a text that is too long for
// the context however it is tokenised ends here.
Result<CompletionRequest> check_request(const ValidationContext& context, const v1::CompleteRequest& request);

// Tokenises, checks the prompt's length against the context, and cuts max_tokens to what is left of it.
Result<Done> add_prompt(const ValidationContext& context, const v1::CompleteRequest& request,
                        CompletionRequest& checked);

}  // namespace scd
