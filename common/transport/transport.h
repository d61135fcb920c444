// The data plane: bytes from a sender's memory into a receiver's staging slots. It knows requests, leases and CRCs, but
// nothing of models or codecs. What "sent" means is local: only the receiver's chunk_done on the control stream says
// that a message arrived.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/base/error.h"
#include "common/transport/message.h"
#include "common/transport/options.h"
#include "common/transport/staging.h"

namespace scd {

// Bytes that stay alive while anyone holds this. Shared: the code cache keeps what several sends read.
struct SharedBytes {
  std::span<const std::byte> bytes{};
  std::shared_ptr<const void> owner{};

  static SharedBytes from(ByteBuffer bytes);
};

// When a message passed which point.
struct SendReport {
  using Clock = std::chrono::steady_clock;
  Clock::time_point queued_at;
  Clock::time_point started_at;   // its turn on the wire came (an emulated link begins to carry it)
  Clock::time_point finished_at;  // the sender's buffer is free again
};

struct SendJob {
  std::string peer{};      // what the receiver's Transport::address() said
  MessageHeader header{};  // payload_bytes is filled in; payload_crc is the caller's (made at encoding)
  SharedBytes payload{};
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  // Called once on the transport's thread, unless send() refused; must not block. Failures: UNAVAILABLE (peer lost or
  // unreachable), DEADLINE_EXCEEDED, CANCELLED (abandoned, or the transport ends), FAILED_PRECONDITION (`require` not
  // met), INVALID_ARGUMENT (an address that cannot be resolved). May be empty.
  std::function<void(const Result<SendReport>&)> on_sent{};
};

// One peer this side has sent to.
struct PeerReport {
  std::string address;
  std::string lanes;  // e.g. "tcp/eth0", "posix/memory cma/memory": what UCX picked; empty until known
  bool rdma = false;
  double bandwidth_gbps = 0;  // moving average of what sends reached; 0 until measured
};

struct TransportCounters {
  StagingCounters staging;
  uint64_t messages_sent = 0;
  uint64_t payload_bytes_sent = 0;
  uint64_t sends_failed = 0;
  uint64_t sends_abandoned = 0;
  size_t sends_pending = 0;  // queued or on the wire
  uint64_t peer_failures = 0;
  uint64_t connections_refused = 0;  // closed for breaking the protocol or lacking a live token
};

// Thread-safe. Destruction ends pending sends with CANCELLED; messages and leases it handed out stay valid.
class Transport {
 public:
  virtual ~Transport() = default;

  // "host:port" to tell peers.
  virtual std::string address() const = 0;
  virtual std::string description() const = 0;  // kind, transports and devices in use: for the log and `scd doctor`

  // Never blocks. RESOURCE_EXHAUSTED when the queue is full, INVALID_ARGUMENT for a payload over 4 GiB, CANCELLED when
  // the transport is ending; otherwise job.on_sent tells the end.
  virtual Result<Done> send(SendJob job) = 0;
  // Ends all sends of a peer's request generation with CANCELLED, soon: those on the wire finish unseen. Peers number
  // their requests each for itself.
  virtual void abandon(const std::string& peer, LeaseKey key) = 0;

  // Errors as StagingPool::open_lease.
  virtual Result<Lease> open_lease(LeaseRequest request) = 0;
  virtual size_t slot_bytes() const = 0;

  virtual std::vector<PeerReport> peers() const = 0;
  virtual TransportCounters counters() const = 0;
};

class LoopbackNetwork;

// The transport `options` ask for. `network` is needed for kLoopback only and must outlive the result.
// Throws Error: INVALID_ARGUMENT (options), UNAVAILABLE (address in use), FAILED_PRECONDITION (`require` not met).
std::unique_ptr<Transport> make_transport(const TransportOptions& options, LoopbackNetwork* network = nullptr);

}  // namespace scd
