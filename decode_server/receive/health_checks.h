// Asks prefill servers for their health, grpc.health.v1; nobody waits for the answers.
#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "common/base/error.h"
#include "decode_server/receive/peer_chooser.h"

namespace scd {

// Thread-safe.
class HealthChecks {
 public:
  // OK: it serves, or has no such service. Called on gRPC's threads; must not call this object.
  using OnResult = std::function<void(PeerId peer, const Result<Done>& health)>;

  explicit HealthChecks(OnResult on_result) : on_result_(std::move(on_result)) {}
  ~HealthChecks();  // cancels what is under way, and waits for it
  HealthChecks(const HealthChecks&) = delete;
  HealthChecks& operator=(const HealthChecks&) = delete;

  // One at a time: nothing where the last one of this peer has not come back.
  void begin(PeerId peer, const std::shared_ptr<grpc::Channel>& channel, std::chrono::milliseconds patience);

 private:
  struct Call;

  const OnResult on_result_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<PeerId, std::shared_ptr<Call>> calls_;  // shared with gRPC's callback, which lets go of it first
  std::vector<std::shared_ptr<Call>> ended_;       // no callback lets go of the last of a channel
};

}  // namespace scd
