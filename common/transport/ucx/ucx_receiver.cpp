#include "common/transport/ucx/ucx_receiver.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/log/log.h"
#include "common/transport/ucx/socket_address.h"
#include "common/transport/ucx/ucx_check.h"

namespace scd {

struct UcxReceiver::Receive {
  Connection* connection;
  Landing landing;
  Clock::time_point started_at;
  std::list<Receive>::iterator position;
};

struct UcxReceiver::Connection {
  UcxReceiver* owner;
  std::string peer;
  Clock::time_point accepted_at;
  ucp_ep_h endpoint = nullptr;
  bool authenticated = false;     // a message with a valid token has come
  std::optional<Failure> doomed;  // to be closed by poll(): not possible from within UCX's callbacks
  std::set<LeaseKey> feeding;     // leases it has sent to
  std::list<Receive> receiving;   // oldest first
};

UcxReceiver::UcxReceiver(const Args& args)
    : worker_(args.worker),
      pool_(args.pool),
      reaper_(args.reaper),
      refused_(args.connections_refused),
      peer_timeout_(args.options.peer_timeout),
      slots_(args.options.slots) {
  ucp_am_handler_param_t param{};
  param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS | UCP_AM_HANDLER_PARAM_FIELD_CB |
                     UCP_AM_HANDLER_PARAM_FIELD_ARG;
  param.id = kMessageAmId;
  param.flags = UCP_AM_FLAG_WHOLE_MSG;
  param.cb = on_message;
  param.arg = this;
  ucx_check(ucp_worker_set_am_recv_handler(worker_, &param), "ucp_worker_set_am_recv_handler");
}

UcxReceiver::~UcxReceiver() = default;

void UcxReceiver::on_connection(ucp_conn_request_h request, void* self) {
  static_cast<UcxReceiver*>(self)->accept(request);
}

void UcxReceiver::accept(ucp_conn_request_h request) {
  ucp_conn_request_attr_t attributes{};
  attributes.field_mask = UCP_CONN_REQUEST_ATTR_FIELD_CLIENT_ADDR;
  std::string peer = "?";
  if (ucp_conn_request_query(request, &attributes) == UCS_OK) {
    peer = SocketAddress{attributes.client_address, sizeof attributes.client_address}.text();
  }
  auto connection = std::make_unique<Connection>(Connection{.owner = this,
                                                            .peer = std::move(peer),
                                                            .accepted_at = Clock::now(),
                                                            .doomed = {},
                                                            .feeding = {},
                                                            .receiving = {}});
  ucp_ep_params_t params{};
  params.field_mask =
      UCP_EP_PARAM_FIELD_CONN_REQUEST | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.conn_request = request;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler = {on_error, connection.get()};
  if (ucp_ep_create(worker_, &params, &connection->endpoint) != UCS_OK) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  connections_[connection->endpoint] = std::move(connection);
}

void UcxReceiver::on_error(void* connection, ucp_ep_h, ucs_status_t status) {
  auto& failed = *static_cast<Connection*>(connection);
  failed.owner->doom(failed,
                     {ErrorCode::kUnavailable, "peer " + failed.peer + " is lost: " + ucs_status_string(status)});
}

ucs_status_t UcxReceiver::on_message(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                     const ucp_am_recv_param_t* param) {
  auto& receiver = *static_cast<UcxReceiver*>(self);
  const auto it = receiver.connections_.find(param->reply_ep);
  if (it == receiver.connections_.end() || it->second->doomed) return UCS_OK;  // dropped
  return receiver.take(*it->second, {static_cast<const std::byte*>(header), header_bytes}, data, bytes,
                       (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0);
}

ucs_status_t UcxReceiver::take(Connection& connection, std::span<const std::byte> header, void* data, size_t bytes,
                               bool rendezvous) {
  Landing landing;
  if (!admit(connection, header, bytes, landing)) return UCS_OK;
  if (rendezvous) {
    start_rendezvous(connection, std::move(landing), data);
    return UCS_INPROGRESS;
  }
  if (bytes > 0) std::memcpy(landing.target().data(), data, bytes);
  pool_.deliver(std::move(landing));
  return UCS_OK;
}

bool UcxReceiver::admit(Connection& connection, std::span<const std::byte> header, size_t bytes, Landing& landing) {
  const RejectReason reason = pool_.admit(header, bytes, landing);
  const LeaseKey key{landing.header.request_id, landing.header.generation};
  if (reason == RejectReason::kNone) {
    connection.authenticated = true;
    remember_feeding(connection, key);
    return true;
  }
  if (is_protocol_violation(reason)) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    doom(connection, protocol_failure(connection.peer, reason));
  } else if (reason == RejectReason::kNoCredit) {
    connection.authenticated = true;
    pool_.fail_lease(key, credit_failure(landing.header));
  } else if (!connection.authenticated && !pool_.is_authentic(landing.header)) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    doom(connection, {ErrorCode::kPermissionDenied, "peer " + connection.peer + " showed no live token"});
  } else {
    connection.authenticated = true;
  }
  return false;
}

void UcxReceiver::remember_feeding(Connection& connection, LeaseKey key) {
  if (!connection.feeding.insert(key).second || connection.feeding.size() <= 2 * slots_) return;
  std::erase_if(connection.feeding, [&](LeaseKey fed) { return !pool_.is_live(fed); });
}

void UcxReceiver::start_rendezvous(Connection& connection, Landing landing, void* descriptor) {
  const auto position = connection.receiving.insert(connection.receiving.end(),
                                                    Receive{&connection, std::move(landing), Clock::now(), {}});
  position->position = position;
  ++receiving_;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE |
                       UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  param.cb.recv_am = on_received;
  param.user_data = &*position;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  const auto target = position->landing.target();
  const ucs_status_ptr_t request = ucp_am_recv_data_nbx(worker_, descriptor, target.data(), target.size(), &param);
  if (UCS_PTR_IS_ERR(request)) finish(*position, UCS_PTR_STATUS(request));
}

void UcxReceiver::on_received(void* request, ucs_status_t status, size_t, void* receive) {
  auto& ended = *static_cast<Receive*>(receive);
  ended.connection->owner->finish(ended, status);
  ucp_request_free(request);
}

void UcxReceiver::finish(Receive& receive, ucs_status_t status) {
  Connection& connection = *receive.connection;
  Landing landing = std::move(receive.landing);
  connection.receiving.erase(receive.position);
  --receiving_;
  if (status == UCS_OK) return pool_.deliver(std::move(landing));
  doom(connection, ucx_failure(status, "receiving from peer " + connection.peer));
}

void UcxReceiver::doom(Connection& connection, Failure failure) {
  if (!connection.doomed) connection.doomed = std::move(failure);
}

void UcxReceiver::poll(Clock::time_point now) {
  for (auto it = connections_.begin(); it != connections_.end();) {
    Connection& connection = *it->second;
    if (!connection.receiving.empty() && now - connection.receiving.front().started_at >= peer_timeout_) {
      doom(connection, {ErrorCode::kUnavailable, "peer " + connection.peer + " stopped in mid-transfer"});
    }
    if (!connection.authenticated && now - connection.accepted_at >= peer_timeout_) {
      refused_.fetch_add(1, std::memory_order_relaxed);
      doom(connection, {ErrorCode::kPermissionDenied, "peer " + connection.peer + " showed no token"});
    }
    if (!connection.doomed) {
      ++it;
      continue;
    }
    const Failure failure = *connection.doomed;
    if (failure.code != ErrorCode::kCancelled) {
      log_info("sender_disconnected", {{"peer", connection.peer}, {"reason", failure.message}});
    }
    const auto feeding = std::exchange(connection.feeding, {});
    closing_.push_back(std::move(it->second));
    it = connections_.erase(it);
    reaper_.close(connection.endpoint);
    for (const LeaseKey key : feeding) pool_.fail_lease(key, failure);
  }
  std::erase_if(closing_, [](const auto& connection) { return connection->receiving.empty(); });
}

UcxReceiver::Clock::time_point UcxReceiver::next_wakeup() const {
  auto earliest = Clock::time_point::max();
  for (const auto& [endpoint, connection] : connections_) {
    if (connection->doomed) return Clock::time_point::min();
    if (!connection->authenticated) earliest = std::min(earliest, connection->accepted_at + peer_timeout_);
    if (!connection->receiving.empty()) {
      earliest = std::min(earliest, connection->receiving.front().started_at + peer_timeout_);
    }
  }
  return earliest;
}

void UcxReceiver::close() {
  for (auto& [endpoint, connection] : connections_)
    doom(*connection, {ErrorCode::kCancelled, "the transport is ending"});
  poll(Clock::now());
}

}  // namespace scd
