// UCX objects as move-nothing RAII: made whole by their constructors, used by the thread that made them only.
#pragma once

#include <ucp/api/ucp.h>

#include <span>
#include <string>
#include <string_view>

#include "common/transport/options.h"
#include "common/transport/ucx/lanes.h"

namespace scd {

// Configuration and transports. The user's UCX_* variables win over ours.
class UcxContext {
 public:
  // Throws FAILED_PRECONDITION when options.require is not met by this machine.
  explicit UcxContext(const TransportOptions& options);
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;
  ~UcxContext() { ucp_cleanup(handle_); }

  ucp_context_h handle() const { return handle_; }
  Lanes resources() const;

 private:
  ucp_context_h handle_ = nullptr;
};

// Memory that network cards are told of once, so that UCX finds it in its cache of registrations whenever it sends from
// there or receives into it. A failure is a warning with the next step: UCX then registers what it touches.
class UcxRegistration {
 public:
  // what: for the log. The memory must outlive this.
  UcxRegistration(const UcxContext& context, std::span<std::byte> memory, std::string_view what);
  UcxRegistration(const UcxRegistration&) = delete;
  UcxRegistration& operator=(const UcxRegistration&) = delete;
  ~UcxRegistration();

 private:
  ucp_context_h context_ = nullptr;
  ucp_mem_h handle_ = nullptr;  // null: there was nothing, or it failed
};

class UcxWorker {
 public:
  explicit UcxWorker(const UcxContext& context);
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;
  ~UcxWorker() { ucp_worker_destroy(handle_); }

  ucp_worker_h handle() const { return handle_; }
  int event_descriptor() const;

 private:
  ucp_worker_h handle_ = nullptr;
};

class UcxListener {
 public:
  // Takes the first free port of the options' range. Throws UNAVAILABLE when none is free.
  UcxListener(const UcxWorker& worker, const TransportOptions& options, ucp_listener_conn_handler_t handler);
  UcxListener(const UcxListener&) = delete;
  UcxListener& operator=(const UcxListener&) = delete;
  ~UcxListener() { ucp_listener_destroy(handle_); }

  uint16_t port() const { return port_; }

 private:
  ucp_listener_h handle_ = nullptr;
  uint16_t port_ = 0;
};

// The lanes of a connected endpoint.
Lanes endpoint_lanes(ucp_ep_h endpoint);

}  // namespace scd
