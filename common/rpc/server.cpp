#include "common/rpc/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include <mutex>
#include <thread>

#include "common/base/error.h"
#include "common/base/host_port.h"
#include "common/log/log.h"
#include "common/rpc/tls.h"

namespace scd {
namespace {

// "host:port" with the port replaced; "[::1]:0" keeps its brackets.
std::string with_port(const std::string& listen, int port) {
  return listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
}

void check_listen(const std::string& listen) {
  if (!is_host_port(listen)) {
    throw Error(ErrorCode::kInvalidArgument,
                "grpc.listen: '" + listen + "' is not host:port, for example 127.0.0.1:7001 or 0.0.0.0:0");
  }
}

void set_arguments(grpc::ServerBuilder& builder, const GrpcOptions& options) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(options.keepalive.count()));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, static_cast<int>(options.keepalive_timeout.count()));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Clients may ping as often as keepalive_ms allows anyone to.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 50);
  // Else a second daemon on the same port would take half of the first one's connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder.SetMaxSendMessageSize(static_cast<int>(options.max_message_bytes));
}

// What gRPC writes for its own developers goes where our lines go; what matters of it comes back as statuses.
void route_grpc_log() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function([](gpr_log_func_args* line) {
      log_debug("grpc", {{"file", line->file}, {"line", line->line}, {"message", line->message}});
    });
  });
}

}  // namespace

RpcServer::RpcServer(const GrpcOptions& options, const std::vector<RpcService>& services) {
  check_listen(options.listen);
  route_grpc_log();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.listen, server_credentials(options.tls), &port_);
  set_arguments(builder, options);
  for (const RpcService& entry : services) {
    builder.RegisterService(entry.service);
    service_names_.push_back(entry.name);
  }
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    throw Error(ErrorCode::kUnavailable,
                "grpc.listen: cannot listen on " + options.listen +
                    ": the port is in use, or the address is not one of this machine; choose another port (0: any)");
  }
  address_ = with_port(options.listen, port_);
  set_serving(false);
}

RpcServer::~RpcServer() { shutdown(std::chrono::steady_clock::now()); }

void RpcServer::set_serving(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  SCD_CHECK(health != nullptr, "the health service is on");
  for (const std::string& name : service_names_) health->SetServingStatus(name, serving);
  health->SetServingStatus("", serving);
}

void RpcServer::linger() const {
  constexpr std::chrono::milliseconds kRoundTrips{200};
  std::this_thread::sleep_for(kRoundTrips);
}

void RpcServer::shutdown(std::chrono::steady_clock::time_point deadline) {
  if (server_ == nullptr) return;
  server_->GetHealthCheckService()->Shutdown();
  const auto left = deadline - std::chrono::steady_clock::now();
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
  server_->Wait();
  server_.reset();
}

}  // namespace scd
