// Reading a start command: what the consumer sent, checked against what this producer is.
#pragma once

#include "common/base/error.h"
#include "prefill_server/handover.h"
#include "prefill_server/producer.h"
#include "scd/v1/prefill.pb.h"

namespace scd {

// INVALID_ARGUMENT naming the field that is out of range, UNIMPLEMENTED for a codec that is not offered,
// FAILED_PRECONDITION naming each fingerprint that differs and both values. The deadline is start's own.
Result<PrefillRequest> read_start(const v1::StartPrefill& start, const Producer& producer,
                                  PrefillClock::time_point received_at);

}  // namespace scd
