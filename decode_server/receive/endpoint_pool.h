// The prefill servers this server may ask: those that configuration names, with every address that a name has. Knows
// who is sound, and which one a request should go to (peer_chooser.h).
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "decode_server/config.h"
#include "decode_server/counters.h"
#include "decode_server/receive/discovery.h"
#include "decode_server/receive/health_checks.h"
#include "decode_server/receive/peer_chooser.h"
#include "decode_server/transfer_account.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd {

// Thread-safe.
class EndpointPool {
 public:
  using Time = ServingClock::time_point;
  using LookUp = std::function<Result<std::vector<std::string>>(const std::string& endpoint)>;

  // What a caller needs to speak to a peer; good for as long as it is held, also when the peer is gone.
  struct Peer {
    PeerChoice choice;  // of a request
    std::string address;
    std::shared_ptr<v1::PrefillService::Stub> stub;  // shared with the pool

    PeerId id() const { return choice.peer; }
  };

  // Opens a channel to each endpoint, and looks names up. Throws Error for TLS files that cannot be read.
  EndpointPool(const PrefillOptions& options, const GrpcOptions& grpc, LookUp look_up = scd::look_up);

  // Begins health checks that are due; returns when it wants to be called next.
  Time watch();
  std::vector<Peer> peers() const;

  // Counts as under way until released. Nothing: none is left that was not tried.
  std::optional<Peer> acquire(const PeerQuestion& question);
  void release(const Peer& peer);

  void succeeded(const Peer& peer, const std::string& lanes);
  // Also forgets what it said of itself: it may come back as another one. True when it is left alone for a while now.
  bool failed(const Peer& peer, const Failure& failure);
  // It is not what it said it was.
  void forget_info(const Peer& peer);
  // It took a request on: it will have codes of these blocks, and has so many tokens to compute before.
  void accepted(const Peer& peer, std::span<const uint64_t> blocks, uint64_t queued_tokens);
  // Why there is none to ask, where there is none.
  Failure nobody() const;

  // Shared: transfers read it while the pool may replace it.
  std::shared_ptr<const v1::GetProducerInfoResponse> info(const Peer& peer) const;
  void set_info(const Peer& peer, const v1::GetProducerInfoResponse& info);
  // Those that have said something of themselves.
  struct Known {
    Peer peer;
    std::shared_ptr<const v1::GetProducerInfoResponse> info;  // as info()
  };
  std::vector<Known> known() const;
  // True when it has not been asked for some seconds: it may have become another one. Then it counts as asked.
  bool info_is_old(const Peer& peer);

  std::vector<EndpointFacts> reports() const;

 private:
  struct Endpoint {
    std::string address;
    std::shared_ptr<grpc::Channel> channel;
    std::shared_ptr<v1::PrefillService::Stub> stub;
    std::string lanes;
    std::optional<Failure> failure;  // of the last request
    Time failed_at{};
    std::optional<Failure> illness;  // of the last health check
    Time check_at{};
    std::shared_ptr<const v1::GetProducerInfoResponse> info;
    Time info_at{};
  };
  using Wanted = std::map<std::string, std::string>;  // address and the name that has it

  void found(const std::string& endpoint, const Result<std::vector<std::string>>& addresses);
  Wanted wanted() const;                                                 // under mutex_
  void add(const std::string& address, const std::string& server_name);  // under mutex_
  void remove(PeerId peer);                                              // under mutex_
  void checked(PeerId peer, const Result<Done>& health);
  static bool reachable(const Endpoint& endpoint);
  void look_at_channels();  // under mutex_

  const PrefillOptions options_;
  const GrpcOptions grpc_;
  mutable std::mutex mutex_;  // guards all below
  PeerChooser chooser_;
  std::map<PeerId, Endpoint> endpoints_;
  std::map<std::string, std::vector<std::string>> addresses_;  // by endpoint of the configuration
  std::map<std::string, Failure> unknown_;                     // endpoints whose last look-up failed
  HealthChecks health_;
  Discovery discovery_;
};

}  // namespace scd
