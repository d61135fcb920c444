// A gRPC server as every daemon wants it: one listening address, TLS, keepalive, health (grpc.health.v1 Check and
// Watch) and reflection.
#pragma once

#include <grpcpp/impl/service_type.h>
#include <grpcpp/server.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/rpc/options.h"

namespace scd {

struct RpcService {
  std::string name;  // as health knows it: Service::service_full_name()
  grpc::Service* service = nullptr;
};

class RpcServer {
 public:
  // Listens at once; health says NOT_SERVING until set_serving(true). The services must outlive the server.
  // Throws Error: UNAVAILABLE (address in use or not ours), NOT_FOUND or INVALID_ARGUMENT (TLS files).
  RpcServer(const GrpcOptions& options, const std::vector<RpcService>& services);
  ~RpcServer();  // as shutdown(0)
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  // host:port with the port that was bound.
  const std::string& address() const { return address_; }
  int port() const { return port_; }

  // What health answers for the empty service name and for each service.
  void set_serving(bool serving);
  // After the last call ended and before shutdown(): what was written last reaches its clients. A connection that is
  // closed while the client's acknowledgements lie unread is reset by the kernel, and what is under way is lost.
  void linger() const;
  // NOT_SERVING, no new calls; calls that run get until the deadline, then they are cancelled. Idempotent.
  void shutdown(std::chrono::steady_clock::time_point deadline);

 private:
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::string> service_names_;
  std::string address_;
  int port_ = 0;
};

}  // namespace scd
