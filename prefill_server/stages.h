// What the request stage asks of the stages behind it.
#pragma once

#include <cstdint>
#include <memory>

#include "common/base/error.h"
#include "prefill_server/job.h"

namespace scd {

struct PrefillLoad {
  size_t live_requests = 0;
  int64_t queued_tokens = 0;  // of live requests: their tokens without stored codes when they came
  size_t capacity = 0;
  uint64_t code_cache_bytes = 0;
  bool draining = false;
};

// Thread-safe; nothing blocks.
class HandoverService {
 public:
  virtual ~HandoverService() = default;
  // Everything that becomes of the request is told to the listener. The job lives until it ends; null when refused.
  virtual std::shared_ptr<PrefillJob> begin(PrefillRequest request, std::shared_ptr<PrefillListener> listener) = 0;
  virtual void grant(const std::shared_ptr<PrefillJob>& job, uint32_t messages) = 0;
  virtual void acknowledge(const std::shared_ptr<PrefillJob>& job, uint32_t sequence) = 0;
  virtual PrefillLoad load() const = 0;
};

}  // namespace scd
