// The prefill servers this server may ask, and which one is asked next.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "decode_server/config.h"
#include "decode_server/transfer_account.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd {

struct EndpointReport {
  std::string address;
  bool healthy = false;
  std::string reason;  // the last error; empty when healthy
  int32_t outstanding = 0;
  std::string lanes;  // what its data plane used last; empty until known
};

// Thread-safe.
class EndpointPool {
 public:
  // Opens a channel to each endpoint. Throws Error for TLS files that cannot be read.
  EndpointPool(const PrefillOptions& options, const GrpcOptions& grpc);

  size_t size() const { return endpoints_.size(); }
  const std::string& address(size_t index) const { return endpoints_[index].address; }
  v1::PrefillService::Stub& stub(size_t index) const { return *endpoints_[index].stub; }

  // The one with the fewest outstanding requests among those not tried; failing ones only when there is no other.
  // Counts as outstanding until released.
  std::optional<size_t> acquire(const std::set<size_t>& tried);
  void release(size_t index);

  void succeeded(size_t index, const std::string& lanes);
  // Also forgets what it said of itself: it may come back as another one.
  void failed(size_t index, const Failure& failure);

  // Shared: transfers read it while the pool may replace it.
  std::shared_ptr<const v1::GetProducerInfoResponse> info(size_t index) const;
  void set_info(size_t index, const v1::GetProducerInfoResponse& info);

  std::vector<EndpointReport> reports() const;

 private:
  struct Endpoint {
    std::string address;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<v1::PrefillService::Stub> stub;
    int32_t outstanding = 0;
    std::string lanes;
    std::optional<Failure> failure;
    ServingClock::time_point avoid_until;
    std::shared_ptr<const v1::GetProducerInfoResponse> info;
  };
  bool healthy(const Endpoint& endpoint) const;

  const std::chrono::milliseconds retry_after_;
  mutable std::mutex mutex_;
  std::vector<Endpoint> endpoints_;  // addresses and stubs do not change; the rest under mutex_
};

}  // namespace scd
