// What a prefill server is doing, as numbers: for metrics and tests, which assert that all of the present ones return
// to zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/transport/transport.h"
#include "prefill_server/encode/code_cache.h"
#include "prefill_server/job_ledger.h"
#include "prefill_server/prefill/prefill_stage.h"
#include "prefill_server/store/code_store.h"

namespace scd {

struct PrefillCounters {
  OutcomeCounts requests{};  // ended; index 0: well, else by ErrorCode
  size_t live_requests = 0;
  size_t computing = 0;  // waiting for the model or in it
  StepCounters steps;
  int32_t pages_in_use = 0;
  CodeCacheCounters code_cache;
  CodeStoreCounters code_store;
  TransportCounters transport;
};

}  // namespace scd
