// The sending half over UCX: one connection per peer, made when there is something to send and again after a failure.
#pragma once

#include <ucp/api/ucp.h>

#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "common/transport/sender.h"
#include "common/transport/ucx/endpoint_reaper.h"

namespace scd {

// Used by the progress thread only.
class UcxConnector {
 public:
  using Clock = std::chrono::steady_clock;

  UcxConnector(ucp_worker_h worker, Sender& sender, EndpointReaper& reaper, const TransportOptions& options);
  UcxConnector(const UcxConnector&) = delete;
  UcxConnector& operator=(const UcxConnector&) = delete;
  ~UcxConnector();

  void poll(Clock::time_point now);  // starts what may start, ends what failed or stalled
  bool busy() const { return on_wire_ > 0; }
  void flush();  // lets what UCX has buffered leave; the reaper is idle when it has
  void close();  // gives up every connection; sends end while the worker is progressed
  bool closed() const { return connections_.empty() && closing_.empty(); }
  bool closing() const { return !closing_.empty(); }  // some connection is being taken down

 private:
  struct Connection;
  struct WireSend;

  static void on_connected(void* request, ucs_status_t status, void* connection);
  static void on_error(void* connection, ucp_ep_h endpoint, ucs_status_t status);
  static void on_sent(void* request, ucs_status_t status, void* wire_send);

  Result<Connection*> connect(const std::string& peer);
  Result<Connection*> make_connection(const std::string& peer);
  void start(OutgoingMessage* message);
  void put_on_wire(Connection& connection, OutgoingMessage* message);
  void finish(Connection& connection, OutgoingMessage* message, ucs_status_t status);
  void fail(Connection& connection, Failure failure);
  void close_failed();
  void learn_lanes(Connection& connection);

  ucp_worker_h worker_;
  Sender& sender_;
  EndpointReaper& reaper_;
  const TransportRequirement require_;
  const bool user_chose_protocol_;
  const std::chrono::milliseconds peer_timeout_;

  std::map<std::string, std::unique_ptr<Connection>> connections_;
  std::list<std::unique_ptr<Connection>> closing_;  // endpoint closed, sends not all ended
  size_t on_wire_ = 0;
  bool any_failed_ = false;
};

}  // namespace scd
