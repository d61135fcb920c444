// The receiving half over UCX: accepted connections, and messages on their way into staging slots.
#pragma once

#include <ucp/api/ucp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "common/transport/options.h"
#include "common/transport/staging.h"
#include "common/transport/ucx/endpoint_reaper.h"

namespace scd {

inline constexpr unsigned kMessageAmId = 1;

// Used by the progress thread only.
class UcxReceiver {
 public:
  using Clock = std::chrono::steady_clock;

  struct Args {
    ucp_worker_h worker;
    StagingPool& pool;
    EndpointReaper& reaper;
    const TransportOptions& options;
    std::atomic<uint64_t>& connections_refused;  // counted here, read by other threads
  };

  explicit UcxReceiver(const Args& args);
  UcxReceiver(const UcxReceiver&) = delete;
  UcxReceiver& operator=(const UcxReceiver&) = delete;
  ~UcxReceiver();

  ucp_listener_conn_handler_t connection_handler() { return {on_connection, this}; }

  void poll(Clock::time_point now);  // closes connections that failed, stalled or never showed a token
  Clock::time_point next_wakeup() const;
  bool busy() const { return receiving_ > 0; }
  void close();  // gives up every connection; receives end while the worker is progressed
  bool closed() const { return connections_.empty() && closing_.empty(); }
  bool closing() const { return !closing_.empty(); }  // some connection is being taken down

 private:
  struct Connection;
  struct Receive;

  static void on_connection(ucp_conn_request_h request, void* self);
  static void on_error(void* connection, ucp_ep_h endpoint, ucs_status_t status);
  static ucs_status_t on_message(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                 const ucp_am_recv_param_t* param);
  static void on_received(void* request, ucs_status_t status, size_t bytes, void* receive);

  void accept(ucp_conn_request_h request);
  // UCS_INPROGRESS when UCX's data descriptor stays in use.
  ucs_status_t take(Connection& connection, std::span<const std::byte> header, void* data, size_t bytes,
                    bool rendezvous);
  bool admit(Connection& connection, std::span<const std::byte> header, size_t bytes, Landing& landing);
  void start_rendezvous(Connection& connection, Landing landing, void* descriptor);
  void finish(Receive& receive, ucs_status_t status);
  void doom(Connection& connection, Failure failure);
  void remember_feeding(Connection& connection, LeaseKey key);

  ucp_worker_h worker_;
  StagingPool& pool_;
  EndpointReaper& reaper_;
  std::atomic<uint64_t>& refused_;
  const std::chrono::milliseconds peer_timeout_;
  const size_t slots_;

  std::map<ucp_ep_h, std::unique_ptr<Connection>> connections_;
  std::list<std::unique_ptr<Connection>> closing_;  // endpoint closed, receives not all ended
  size_t receiving_ = 0;
};

}  // namespace scd
