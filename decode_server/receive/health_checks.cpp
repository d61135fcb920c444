#include "decode_server/receive/health_checks.h"

#include <grpcpp/client_context.h>

#include "common/rpc/status.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace scd {
namespace {

using grpc::health::v1::HealthCheckResponse;

Result<Done> read_health(const grpc::Status& status, const HealthCheckResponse& response) {
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) return Done{};
  if (!status.ok()) return Failure{to_failure(status).code, "health check: " + status.error_message()};
  if (response.status() == HealthCheckResponse::SERVING) return Done{};
  return Failure{ErrorCode::kUnavailable, "its health says it is not serving"};
}

}  // namespace

struct HealthChecks::Call {
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  HealthCheckResponse response;
  std::unique_ptr<grpc::health::v1::Health::Stub> stub;
};

HealthChecks::~HealthChecks() {
  std::unique_lock lock(mutex_);
  for (const auto& [peer, call] : calls_) call->context.TryCancel();
  changed_.wait(lock, [this] { return calls_.empty(); });
}

void HealthChecks::begin(PeerId peer, const std::shared_ptr<grpc::Channel>& channel,
                         std::chrono::milliseconds patience) {
  auto call = std::make_shared<Call>();
  std::vector<std::shared_ptr<Call>> ended;
  {
    std::scoped_lock lock(mutex_);
    ended.swap(ended_);
    if (!calls_.emplace(peer, call).second) return;
  }
  call->context.set_deadline(std::chrono::system_clock::now() + patience);
  call->stub = grpc::health::v1::Health::NewStub(channel);
  call->stub->async()->Check(&call->context, &call->request, &call->response,
                             [this, peer, own = call](const grpc::Status& status) mutable {
                               on_result_(peer, read_health(status, own->response));
                               own.reset();  // before anybody lets go of the channel (common/rpc/channel.h)
                               std::scoped_lock lock(mutex_);
                               ended_.push_back(std::move(calls_.extract(peer).mapped()));
                               changed_.notify_all();
                             });
}

}  // namespace scd
