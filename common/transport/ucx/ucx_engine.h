// Everything that calls UCX, built, run and ended by the progress thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "common/transport/sender.h"
#include "common/transport/ucx/endpoint_reaper.h"
#include "common/transport/ucx/event_waiter.h"
#include "common/transport/ucx/ucx_connector.h"
#include "common/transport/ucx/ucx_handles.h"
#include "common/transport/ucx/ucx_receiver.h"

namespace scd {

class UcxEngine {
 public:
  // The parts that other threads use too: owned by the transport, which outlives the engine.
  struct Shared {
    const TransportOptions& options;
    StagingPool& pool;
    Sender& sender;
    EventWaiter& waiter;
    std::atomic<uint64_t>& connections_refused;
  };

  explicit UcxEngine(const Shared& shared);  // throws Error
  UcxEngine(const UcxEngine&) = delete;
  UcxEngine& operator=(const UcxEngine&) = delete;
  ~UcxEngine();

  std::string address() const { return address_; }
  std::string description() const { return "ucx over " + context_.resources().text; }

  void run(const std::stop_token& stop);

 private:
  using Clock = std::chrono::steady_clock;

  bool progress();  // whether anything happened
  void poll(Clock::time_point now);
  void sleep(const std::stop_token& stop);
  // Progresses until done() or the time is up.
  template <class IsDone>
  void drain(std::chrono::milliseconds limit, IsDone done);

  Shared shared_;
  UcxContext context_;
  UcxRegistration slots_, sends_;
  // Ends before the parts below it are taken apart: it may still write into slots and read payloads.
  std::unique_ptr<UcxWorker> worker_;
  EndpointReaper reaper_;
  std::unique_ptr<UcxReceiver> receiver_;
  std::unique_ptr<UcxConnector> connector_;
  std::unique_ptr<UcxListener> listener_;
  std::string address_;
};

}  // namespace scd
