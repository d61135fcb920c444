// What a decode server is doing, as numbers: for GetServerInfo, the log and tests, which assert that all of the present
// ones return to zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace scd {

struct ServerCounters {
  // At present.
  int32_t waiting = 0;  // admitted requests not included
  int32_t running = 0;
  int32_t sequences = 0;  // of the running ones, those the compute thread has taken up
  int32_t transfers = 0;
  int32_t prefill_streams = 0;
  int32_t pages_in_use = 0;
  int32_t pages_kept = 0;  // used by no request: they stay for later ones
  size_t live_leases = 0;
  size_t slots_in_use = 0;
  // Since the start.
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t cancelled = 0;
  uint64_t refused = 0;  // queue full or draining
  uint64_t transfers_started = 0;
  uint64_t transfers_failed = 0;
  uint64_t other_endpoints = 0;
  uint64_t hedges = 0;
  uint64_t local_fallbacks = 0;
  uint64_t preemptions = 0;              // requests that gave their pages up to others, to be continued later
  uint64_t answer_steps = 0;             // of a token of each answer under way, without prompts
  uint64_t answer_steps_ahead = 0;       // of these, queued on a GPU before the tokens of the step before were known
  uint64_t prefix_tokens_looked_up = 0;  // of prompts
  uint64_t prefix_tokens_found = 0;      // of these, in the prefix cache
  uint64_t prefix_pages_evicted = 0;

  bool idle() const {
    return waiting == 0 && running == 0 && sequences == 0 && transfers == 0 && prefill_streams == 0 &&
           pages_in_use == 0 && live_leases == 0 && slots_in_use == 0;
  }
};

struct EndpointFacts {
  std::string address{};
  bool healthy = false;
  std::string reason{};   // the last error; empty when healthy
  std::string lanes{};    // what the data plane uses to it; empty until known
  bool ejected = false;   // it failed requests and is left alone for a while
  bool draining = false;  // its name no longer has it: it gets no new requests
  int64_t tokens = 0;     // under way there for this server
};

}  // namespace scd
