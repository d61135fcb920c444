// kTtftParts as a server's account of a request tells them.
#pragma once

#include <array>

#include "scd/v1/completion.pb.h"
#include "tools/scd/ttft_parts.h"

namespace scd {

using AccountTime = double (v1::TransferAccount::*)() const;

// In the order of kTtftParts.
inline constexpr std::array<AccountTime, kTtftParts.size()> kPartTimes{
    &v1::TransferAccount::queue_ms,      &v1::TransferAccount::prefill_ms,      &v1::TransferAccount::encode_ms,
    &v1::TransferAccount::wire_ms,       &v1::TransferAccount::rebuild_ms,      &v1::TransferAccount::suffix_ms,
    &v1::TransferAccount::first_step_ms, &v1::TransferAccount::orchestration_ms};

}  // namespace scd
