// A transport whose sends take as long as a test wants: they are the compute thread's, so that it can be held in a
// step.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/transport/transport.h"

namespace scd::testing {

// What a SlowTransport does, for the test that outlives it.
struct SendWatch {
  explicit SendWatch(std::chrono::milliseconds send = std::chrono::milliseconds(333), bool hold = true)
      : longest(send), held(hold) {}

  std::mutex mutex;
  std::condition_variable changed;
  const std::chrono::milliseconds longest;
  bool held;  // sends take as long as that, or until they are let go
  bool sending = false;
  bool ending = false;
  bool ended_while_sending = false;
  std::vector<LeaseKey> abandoned;

  bool wait_for_send() {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), [this] { return sending; });
  }
  void hold(bool on) {
    std::scoped_lock lock(mutex);
    held = on;
    changed.notify_all();
  }
};

// Each send, which the compute thread waits for, takes as long as the watch says.
class SlowTransport final : public Transport {
 public:
  SlowTransport(std::unique_ptr<Transport> carrier, SendWatch& watch) : carrier_(std::move(carrier)), watch_(watch) {}
  ~SlowTransport() override {
    std::unique_lock lock(watch_.mutex);
    watch_.ended_while_sending = watch_.sending;
    watch_.ending = true;
    watch_.changed.notify_all();
    watch_.changed.wait(lock, [this] { return !watch_.sending; });
  }

  Result<Done> send(SendJob job) override {
    std::unique_lock lock(watch_.mutex);
    watch_.sending = true;
    watch_.changed.notify_all();
    watch_.changed.wait_for(lock, watch_.longest, [this] { return watch_.ending || !watch_.held; });
    const auto sent = carrier_->send(std::move(job));
    watch_.sending = false;
    watch_.changed.notify_all();
    return sent;
  }
  std::string address() const override { return carrier_->address(); }
  std::string description() const override { return "slow"; }
  void abandon(const std::string& peer, LeaseKey key) override {
    {
      std::scoped_lock lock(watch_.mutex);
      watch_.abandoned.push_back(key);
    }
    carrier_->abandon(peer, key);
  }
  Result<Lease> open_lease(LeaseRequest request) override { return carrier_->open_lease(std::move(request)); }
  size_t slot_bytes() const override { return carrier_->slot_bytes(); }
  std::vector<PeerReport> peers() const override { return carrier_->peers(); }
  TransportCounters counters() const override { return carrier_->counters(); }

 private:
  std::unique_ptr<Transport> carrier_;
  SendWatch& watch_;
};

}  // namespace scd::testing
