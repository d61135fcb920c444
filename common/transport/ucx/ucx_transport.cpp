#include "common/transport/ucx/ucx_transport.h"

#include <pthread.h>

#include <exception>
#include <future>
#include <stop_token>
#include <thread>
#include <utility>

#include "common/log/log.h"
#include "common/transport/ucx/ucx_engine.h"

namespace scd {
namespace {

class UcxTransport final : public Transport {
 public:
  explicit UcxTransport(const TransportOptions& options)
      : options_(options),
        pool_(options.slot_bytes, options.slots),
        sender_(options_, [this] { waiter_.wake(); }),
        thread_([this](const std::stop_token& stop) { run(stop); }) {
    pthread_setname_np(thread_.native_handle(), "scd-ucx");
    started_.get_future().get();  // throws what the thread could not start for
  }

  UcxTransport(const UcxTransport&) = delete;
  UcxTransport& operator=(const UcxTransport&) = delete;
  ~UcxTransport() override {
    thread_.request_stop();
    waiter_.wake();
    thread_.join();
  }

  std::string address() const override { return address_; }
  std::string description() const override { return description_; }
  Result<Done> send(SendJob job) override { return sender_.submit(std::move(job)); }
  void abandon(const std::string& peer, LeaseKey key) override { sender_.abandon(peer, key); }
  Result<Lease> open_lease(LeaseRequest request) override { return pool_.open_lease(std::move(request)); }
  size_t slot_bytes() const override { return pool_.slot_bytes(); }
  std::vector<PeerReport> peers() const override { return sender_.peers(); }

  TransportCounters counters() const override {
    TransportCounters counters;
    counters.staging = pool_.counters();
    counters.connections_refused = connections_refused_.load(std::memory_order_relaxed);
    sender_.add_counters(counters);
    return counters;
  }

 private:
  void run(const std::stop_token& stop) {
    std::unique_ptr<UcxEngine> engine;
    try {
      engine = std::make_unique<UcxEngine>(UcxEngine::Shared{options_, pool_, sender_, waiter_, connections_refused_});
    } catch (...) {
      sender_.close();
      started_.set_exception(std::current_exception());
      return;
    }
    address_ = engine->address();
    description_ = engine->description();
    log_info("transport_listening", {{"address", address_}, {"transports", description_}});
    started_.set_value();
    engine->run(stop);
  }

  const TransportOptions options_;
  StagingPool pool_;
  EventWaiter waiter_;
  Sender sender_;
  std::atomic<uint64_t> connections_refused_{0};

  // Written by the thread before `started_` is set, constant afterwards.
  std::string address_;
  std::string description_;
  std::promise<void> started_;
  std::jthread thread_;
};

}  // namespace

std::unique_ptr<Transport> make_ucx_transport(const TransportOptions& options) {
  check_options(options);
  return std::make_unique<UcxTransport>(options);
}

}  // namespace scd
