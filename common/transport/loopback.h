// A transport inside one process, for tests and for both servers in one binary. Same queueing, shaping, leases and
// checks as UCX; the network between can be told to misbehave.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "common/transport/transport.h"

namespace scd {

// What befalls one message. A delayed message is overtaken by later ones: that is how to reorder.
struct LoopbackFault {
  bool drop = false;  // the sender sees success, as with UCX
  std::chrono::microseconds delay{0};
  std::optional<size_t> flip_header_bit{};   // modulo the header's size
  std::optional<size_t> flip_payload_bit{};  // modulo the payload's size
};

class LoopbackTransport;
struct LoopbackFrame;

// The wire that connects the endpoints of a process; must outlive them. Thread-safe.
class LoopbackNetwork {
 public:
  using FaultPlan = std::function<LoopbackFault(const MessageHeader&)>;

  // Asked for every message, on the sender's transport thread. Empty: no faults.
  void set_faults(FaultPlan plan);
  // A cut peer neither receives nor sends: sends to and from it fail with UNAVAILABLE, leases fed by it fail.
  void cut(const std::string& address);
  void restore(const std::string& address);

 private:
  friend class LoopbackTransport;

  std::string attach(LoopbackTransport& transport);
  void detach(const std::string& address);
  LoopbackFault fault_for(const MessageHeader& header) const;
  // UNAVAILABLE when either end is cut or not there.
  Result<Done> carry(const std::string& to, LoopbackFrame frame);
  void tell_lost(const std::string& address);

  mutable std::mutex mutex_;
  std::map<std::string, LoopbackTransport*> endpoints_;
  std::set<std::string> cut_;
  // Shared: replaced while another thread may be asking the old one.
  std::shared_ptr<const FaultPlan> plan_;
  int next_port_ = 1;
};

std::unique_ptr<Transport> make_loopback_transport(const TransportOptions& options, LoopbackNetwork& network);

}  // namespace scd
