// Sends a job's codes as far as its consumer's credit goes, from whatever thread brings codes or credit: nothing here
// blocks, so no thread of its own is needed. Tells the job when the last message has left, or that one could not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/transport/transport.h"
#include "prefill_server/job.h"
#include "prefill_server/metrics.h"

namespace scd {

class Shipper {
 public:
  using Job = std::shared_ptr<PrefillJob>;  // shared as PrefillJob says

  struct Args {
    Transport& transport;
    PrefillMetrics& metrics;
    uint32_t max_credit_messages = 64;
    uint64_t max_unsent_bytes = 0;
    std::function<void()> on_room;  // a job has dropped to max_unsent_bytes again
  };

  explicit Shipper(Args args) : args_(std::move(args)) {}

  // The job's first credit.
  void open(const Job& job);
  void add(const Job& job, std::vector<CodeUnit> units);
  // More messages may be unacknowledged; what exceeds max_credit_messages is not used.
  void grant(const Job& job, uint32_t messages);
  // INVALID_ARGUMENT for a message that was not sent, or was acknowledged before.
  Result<Done> acknowledge(const Job& job, uint32_t sequence);
  // Drops what waits; sends on the wire end unseen.
  void abandon(PrefillJob& job);

 private:
  void send_what_may_leave(const Job& job);
  std::optional<SendJob> next(const Job& job);
  std::string lanes_to(const std::string& peer) const;
  void left(const Job& job, const CodeUnit& unit, const Result<SendReport>& result);

  Args args_;
};

}  // namespace scd
