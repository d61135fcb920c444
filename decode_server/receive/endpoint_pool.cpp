#include "decode_server/receive/endpoint_pool.h"

#include <utility>

#include "common/rpc/channel.h"

namespace scd {

EndpointPool::EndpointPool(const PrefillOptions& options, const GrpcOptions& grpc) : retry_after_(options.retry_after) {
  for (const std::string& address : options.endpoints) {
    Endpoint endpoint;
    endpoint.address = address;
    endpoint.channel = make_channel(address, grpc);
    endpoint.stub = v1::PrefillService::NewStub(endpoint.channel);
    endpoints_.push_back(std::move(endpoint));
  }
}

bool EndpointPool::healthy(const Endpoint& endpoint) const {
  const grpc_connectivity_state state = endpoint.channel->GetState(/*try_to_connect=*/true);
  return state != GRPC_CHANNEL_TRANSIENT_FAILURE && state != GRPC_CHANNEL_SHUTDOWN &&
         ServingClock::now() >= endpoint.avoid_until;
}

std::optional<size_t> EndpointPool::acquire(const std::set<size_t>& tried) {
  std::scoped_lock lock(mutex_);
  std::optional<size_t> best;
  bool best_is_healthy = false;
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    if (tried.contains(i)) continue;
    const bool is_healthy = healthy(endpoints_[i]);
    const bool better = !best || (is_healthy && !best_is_healthy) ||
                        (is_healthy == best_is_healthy && endpoints_[i].outstanding < endpoints_[*best].outstanding);
    if (!better) continue;
    best = i;
    best_is_healthy = is_healthy;
  }
  if (best) ++endpoints_[*best].outstanding;
  return best;
}

void EndpointPool::release(size_t index) {
  std::scoped_lock lock(mutex_);
  --endpoints_[index].outstanding;
}

void EndpointPool::succeeded(size_t index, const std::string& lanes) {
  std::scoped_lock lock(mutex_);
  endpoints_[index].failure.reset();
  endpoints_[index].avoid_until = {};
  endpoints_[index].lanes = lanes;
}

void EndpointPool::failed(size_t index, const Failure& failure) {
  std::scoped_lock lock(mutex_);
  endpoints_[index].failure = failure;
  endpoints_[index].avoid_until = ServingClock::now() + retry_after_;
  endpoints_[index].info.reset();
}

std::shared_ptr<const v1::GetProducerInfoResponse> EndpointPool::info(size_t index) const {
  std::scoped_lock lock(mutex_);
  return endpoints_[index].info;
}

void EndpointPool::set_info(size_t index, const v1::GetProducerInfoResponse& info) {
  auto copy = std::make_shared<const v1::GetProducerInfoResponse>(info);
  std::scoped_lock lock(mutex_);
  endpoints_[index].info = std::move(copy);
}

std::vector<EndpointReport> EndpointPool::reports() const {
  std::scoped_lock lock(mutex_);
  std::vector<EndpointReport> reports;
  for (const Endpoint& endpoint : endpoints_) {
    const bool is_healthy = healthy(endpoint) && !endpoint.failure;
    std::string reason = endpoint.failure ? endpoint.failure->message : "";
    if (!is_healthy && reason.empty()) reason = "cannot be reached";
    reports.push_back({endpoint.address, is_healthy, std::move(reason), endpoint.outstanding, endpoint.lanes});
  }
  return reports;
}

}  // namespace scd
