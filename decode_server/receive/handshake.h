// Whether a prefill server's model and codec suit this server, and the decoder for what it will send.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/base/error.h"
#include "common/codec/codec.h"
#include "decode_server/completion.h"
#include "decode_server/consumer_identity.h"
#include "decode_server/page_origin.h"
#include "scd/v1/prefill.pb.h"

namespace scd {

// FAILED_PRECONDITION names both, unless producer and consumer are one model: the producer's bits are then the
// consumer's.
Result<Done> check_same_model(const ConsumerIdentity& consumer, const v1::GetProducerInfoResponse& producer);

// What the producer said of itself leaves no hope that it serves these tokens of the request: UNAVAILABLE where they
// are more than it can take, FAILED_PRECONDITION where its encoder is another than the artifact's.
Result<Done> check_suited(const ConsumerIdentity& consumer, const CompletionRequest& request, int64_t handover_tokens,
                          const v1::GetProducerInfoResponse& producer);

// The artifact was made for this producer, and its codes are the ones the producer makes.
bool artifact_fits(const ConsumerIdentity& consumer, const v1::GetProducerInfoResponse& producer);

// What the codec's codes from this producer become; nothing where that says too little, as other producers' codes would
// bear the same name.
std::optional<PageOrigin> origin_of(const ConsumerIdentity& consumer, const CodecChoice& codec,
                                    const v1::GetProducerInfoResponse& producer);

// FAILED_PRECONDITION names everything that differs.
Result<std::shared_ptr<const Decoder>> make_transfer_decoder(const ConsumerIdentity& consumer, CodecId codec,
                                                             bool exact, const v1::GetProducerInfoResponse& producer);

}  // namespace scd
