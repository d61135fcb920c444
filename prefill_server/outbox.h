// What a job has to send and how much of it may leave: the ship stage's books, one per job.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "prefill_server/handover.h"

namespace scd {

struct Outbox {
  std::mutex mutex;
  // Guarded by mutex:
  std::deque<CodeUnit> waiting;
  bool sending = false;                  // one thread at a time hands messages to the transport
  uint32_t credit = 0;                   // messages that may leave now
  uint32_t sequence = 0;                 // of the next message
  std::vector<bool> acknowledged;        // by sequence
  size_t left = 0;                       // messages whose buffers the transport gave back
  uint64_t payload_bytes = 0;            // of these
  uint64_t unsent_bytes = 0;             // waiting or on the wire
  std::map<int64_t, size_t> chunk_left;  // by the chunk's first token: messages that left
};

}  // namespace scd
