// What a user sets about the data plane; common/config describes it in YAML under `transport`, the prefill server
// its bandwidth_gbps under `link`.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace scd {

enum class TransportKind : uint8_t { kUcx, kLoopback };
// kRdma: refuse to serve a peer that is reached over anything less than RDMA.
enum class TransportRequirement : uint8_t { kAny, kRdma };

struct TransportOptions {
  TransportKind kind = TransportKind::kUcx;

  // Address and ports the data plane listens on. The first free port of the range is taken; 0 lets the kernel choose.
  std::string listen_host = "0.0.0.0";
  uint16_t port_first = 0;
  uint16_t port_last = 0;  // inclusive; 0: the same as port_first
  // What peers are told to connect to: "host", "host:port", or empty for the bound address (needed when listening on
  // 0.0.0.0 or behind address translation).
  std::string advertise;

  // UCX transports to choose from, as in UCX_TLS ("tcp", "sm,self", "rc,ud,self"); empty: UCX chooses. UCX_*
  // variables set by the user win over everything here.
  std::string transports;
  TransportRequirement require = TransportRequirement::kAny;

  // A peer that makes no progress for this long is failed. Must exceed slot_bytes / the link's bandwidth.
  std::chrono::milliseconds peer_timeout{5000};

  // Receiver-owned staging memory: no payload may be larger than a slot.
  size_t slot_bytes = size_t{4} << 20;
  size_t slots = 128;

  // Messages that may wait in the sender; send() refuses beyond.
  size_t send_queue = 4096;
  // What is handed to the network at once, per peer: no more messages than this, and beyond two no more bytes. More
  // than bandwidth times round trip only makes messages wait for each other.
  size_t sends_in_flight = 32;
  size_t bytes_in_flight = size_t{1} << 20;

  // Caps what this side sends, to emulate or protect a slow link. Gigabit/s (1e9 bit/s); 0: no cap.
  double bandwidth_gbps = 0;
};

// Throws Error(INVALID_ARGUMENT) naming the option that is out of range.
void check_options(const TransportOptions& options);
// Throws Error(INVALID_ARGUMENT) naming the address that cannot be resolved. May ask a name server.
void check_addresses(const TransportOptions& options);

}  // namespace scd
