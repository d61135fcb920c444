#include "common/transport/ucx/ucx_connector.h"

#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include "common/log/log.h"
#include "common/transport/ucx/lanes.h"
#include "common/transport/ucx/socket_address.h"
#include "common/transport/ucx/ucx_check.h"
#include "common/transport/ucx/ucx_handles.h"
#include "common/transport/ucx/ucx_receiver.h"

namespace scd {
namespace {

// Up to which size a payload travels with its header (one copy more) instead of by rendezvous. Over TCP a rendezvous
// costs two round trips and a thread's wake-up at each end (64 KiB over one machine's loopback: 1.9 GiB/s eager, 0.95
// by rendezvous); over shared memory the kernel pins every page it copies, at one end only (64 KiB: 8.8 against 6.4
// GiB/s, 1 MiB: 11 against 8; two Zen 3 cores). RDMA writes straight into the slot.
size_t eager_limit(const Lanes& lanes) {
  if (lanes.rdma) return 0;
  return lanes.tcp ? size_t{256} << 10 : size_t{1} << 20;
}

}  // namespace

struct UcxConnector::Connection {
  UcxConnector* owner;
  std::string peer;
  ucp_ep_h endpoint = nullptr;
  size_t on_wire = 0;  // operations that UCX will call back about
  bool connected = false;
  size_t eager_bytes = 0;              // payloads up to this size travel with their header
  std::vector<OutgoingMessage*> held;  // until connected
  std::optional<Failure> failure;      // to be closed by poll(): not possible from within UCX's callbacks
};

struct UcxConnector::WireSend {
  Connection* connection;
  OutgoingMessage* message;
};

UcxConnector::UcxConnector(ucp_worker_h worker, Sender& sender, EndpointReaper& reaper, const TransportOptions& options)
    : worker_(worker),
      sender_(sender),
      reaper_(reaper),
      require_(options.require),
      user_chose_protocol_(std::getenv("UCX_RNDV_THRESH") != nullptr),
      peer_timeout_(options.peer_timeout) {}

UcxConnector::~UcxConnector() = default;

void UcxConnector::poll(Clock::time_point now) {
  close_failed();
  // A peer that cannot be connected to is reported by the send itself.
  for (const std::string& peer : sender_.take_addressed()) static_cast<void>(connect(peer));
  while (OutgoingMessage* message = sender_.next(now)) start(message);
  for (const std::string& peer : sender_.stalled_peers(now)) {
    if (const auto it = connections_.find(peer); it != connections_.end()) {
      fail(*it->second, {ErrorCode::kUnavailable,
                         "peer " + peer + " has taken nothing for " + std::to_string(peer_timeout_.count()) + " ms"});
    }
  }
  close_failed();
  std::erase_if(closing_, [](const auto& connection) { return connection->on_wire == 0; });
}

Result<UcxConnector::Connection*> UcxConnector::connect(const std::string& peer) {
  if (const auto it = connections_.find(peer); it != connections_.end()) return it->second.get();
  return make_connection(peer);
}

Result<UcxConnector::Connection*> UcxConnector::make_connection(const std::string& peer) {
  const Result<SocketAddress> address = parse_numeric_address(peer);
  if (!address.ok()) return address.failure();
  auto connection = std::make_unique<Connection>(Connection{.owner = this, .peer = peer, .held = {}, .failure = {}});
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&address.value().storage);
  params.sockaddr.addrlen = address.value().length;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler = {on_error, connection.get()};
  const ucs_status_t status = ucp_ep_create(worker_, &params, &connection->endpoint);
  if (status != UCS_OK) {
    return Failure{ErrorCode::kUnavailable, "connecting to peer " + peer + ": " + ucs_status_string(status)};
  }
  Connection* made = connection.get();
  connections_[peer] = std::move(connection);
  // The flush ends when the connection stands. UCX 1.13 aborts the process when a rendezvous is begun earlier and the
  // lanes then change (assertion in ucp_rndv_rts_pack).
  ucp_request_param_t flush{};
  flush.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  flush.cb.send = on_connected;
  flush.user_data = made;
  ++made->on_wire;
  ++on_wire_;
  const ucs_status_ptr_t request = ucp_ep_flush_nbx(made->endpoint, &flush);
  if (UCS_PTR_IS_ERR(request)) on_connected(nullptr, UCS_PTR_STATUS(request), made);
  return made;
}

void UcxConnector::on_connected(void* request, ucs_status_t status, void* connection) {
  auto& made = *static_cast<Connection*>(connection);
  UcxConnector& self = *made.owner;
  if (request != nullptr) ucp_request_free(request);
  --made.on_wire;
  --self.on_wire_;
  if (status != UCS_OK) {
    return self.fail(made,
                     {ErrorCode::kUnavailable, "connecting to peer " + made.peer + ": " + ucs_status_string(status)});
  }
  made.connected = true;
  if (!made.failure) self.learn_lanes(made);
  for (OutgoingMessage* message : std::exchange(made.held, {})) self.put_on_wire(made, message);
}

void UcxConnector::start(OutgoingMessage* message) {
  const std::string peer = message->job.peer;
  const Result<Connection*> found = connect(peer);
  if (!found.ok()) {
    sender_.fail_peer(peer, found.failure());
    sender_.finish(message, found.failure());
    return;
  }
  Connection& connection = *found.value();
  if (!connection.connected && !connection.failure) return connection.held.push_back(message);
  put_on_wire(connection, message);
}

void UcxConnector::put_on_wire(Connection& connection, OutgoingMessage* message) {
  if (connection.failure) return sender_.finish(message, *connection.failure);
  auto* send = new WireSend{&connection, message};  // owned by UCX until on_sent
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS |
                       UCP_OP_ATTR_FIELD_MEMORY_TYPE | UCP_OP_ATTR_FLAG_NO_IMM_CMPL | UCP_OP_ATTR_FLAG_MULTI_SEND;
  param.flags = UCP_AM_SEND_FLAG_REPLY;  // names the connection to the receiver
  param.cb.send = on_sent;
  param.user_data = send;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  const auto payload = message->job.payload.bytes;
  if (payload.size() <= connection.eager_bytes) param.flags |= UCP_AM_SEND_FLAG_EAGER;
  ++connection.on_wire;
  ++on_wire_;
  const ucs_status_ptr_t request = ucp_am_send_nbx(connection.endpoint, kMessageAmId, message->header.data(),
                                                   message->header.size(), payload.data(), payload.size(), &param);
  if (!UCS_PTR_IS_ERR(request)) return;
  delete send;
  finish(connection, message, UCS_PTR_STATUS(request));
}

void UcxConnector::on_sent(void* request, ucs_status_t status, void* wire_send) {
  const std::unique_ptr<WireSend> send(static_cast<WireSend*>(wire_send));
  send->connection->owner->finish(*send->connection, send->message, status);
  ucp_request_free(request);
}

void UcxConnector::finish(Connection& connection, OutgoingMessage* message, ucs_status_t status) {
  --connection.on_wire;
  --on_wire_;
  if (status == UCS_OK) return sender_.finish(message, Done{});
  if (!connection.failure) {
    fail(connection, {ErrorCode::kUnavailable, "peer " + connection.peer + " is lost: " + ucs_status_string(status)});
  }
  sender_.finish(message, *connection.failure);
}

void UcxConnector::learn_lanes(Connection& connection) {
  const Lanes lanes = endpoint_lanes(connection.endpoint);
  if (!user_chose_protocol_) connection.eager_bytes = eager_limit(lanes);
  sender_.set_lanes(connection.peer, lanes.text, lanes.rdma);
  log_info("peer_connected", {{"peer", connection.peer}, {"lanes", lanes.text}});
  if (require_ == TransportRequirement::kRdma && !lanes.rdma) {
    fail(connection, {ErrorCode::kFailedPrecondition,
                      "transport.require: rdma, but peer " + connection.peer + " is reached over " + lanes.text});
  }
}

void UcxConnector::on_error(void* connection, ucp_ep_h, ucs_status_t status) {
  auto& failed = *static_cast<Connection*>(connection);
  failed.owner->fail(failed,
                     {ErrorCode::kUnavailable, "peer " + failed.peer + " is lost: " + ucs_status_string(status)});
}

void UcxConnector::fail(Connection& connection, Failure failure) {
  if (connection.failure) return;
  connection.failure = std::move(failure);
  any_failed_ = true;
}

void UcxConnector::close_failed() {
  if (!std::exchange(any_failed_, false)) return;
  for (auto it = connections_.begin(); it != connections_.end();) {
    if (!it->second->failure) {
      ++it;
      continue;
    }
    Connection& connection = *it->second;
    if (connection.failure->code != ErrorCode::kCancelled) {
      log_warning("peer_lost", {{"peer", connection.peer}, {"reason", connection.failure->message}});
    }
    closing_.push_back(std::move(it->second));
    it = connections_.erase(it);
    sender_.fail_peer(connection.peer, *connection.failure);
    reaper_.close(connection.endpoint);
    for (OutgoingMessage* message : std::exchange(connection.held, {})) sender_.finish(message, *connection.failure);
  }
}

void UcxConnector::flush() {
  for (const auto& [peer, connection] : connections_) reaper_.flush(connection->endpoint);
}

void UcxConnector::close() {
  for (const auto& [peer, connection] : connections_) {
    fail(*connection, {ErrorCode::kCancelled, "the transport is ending"});
  }
  close_failed();
}

}  // namespace scd
