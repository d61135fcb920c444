#include "common/transport/loopback.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "common/transport/sender.h"

namespace scd {

using Clock = SendReport::Clock;

// A message between two endpoints, or, without a payload owner and `lost` set, the news that a peer is gone.
struct LoopbackFrame {
  std::string from;
  HeaderBytes header{};
  SharedBytes payload;
  std::optional<size_t> flip_payload_bit;
  Clock::time_point arrives_at;
  bool lost = false;
};

class LoopbackTransport final : public Transport {
 public:
  LoopbackTransport(const TransportOptions& options, LoopbackNetwork& network)
      : network_(network),
        pool_(options.slot_bytes, options.slots),
        sender_(options, [this] { wake(); }),
        address_(network.attach(*this)),
        thread_([this](const std::stop_token& stop) { run(stop); }) {
    pthread_setname_np(thread_.native_handle(), "scd-loopback");
  }

  LoopbackTransport(const LoopbackTransport&) = delete;
  LoopbackTransport& operator=(const LoopbackTransport&) = delete;
  ~LoopbackTransport() override {
    network_.detach(address_);
    thread_.request_stop();
    wake();
    thread_.join();
  }

  std::string address() const override { return address_; }
  std::string description() const override { return "loopback inside this process"; }
  Result<Done> send(SendJob job) override { return sender_.submit(std::move(job)); }
  void abandon(const std::string& peer, LeaseKey key) override { sender_.abandon(peer, key); }
  Result<Lease> open_lease(LeaseRequest request) override { return pool_.open_lease(std::move(request)); }
  size_t slot_bytes() const override { return pool_.slot_bytes(); }
  std::vector<PeerReport> peers() const override { return sender_.peers(); }

  TransportCounters counters() const override {
    TransportCounters counters;
    counters.staging = pool_.counters();
    sender_.add_counters(counters);
    return counters;
  }

  // Called by the network, from the thread of another endpoint.
  void arrive(LoopbackFrame frame) {
    {
      std::scoped_lock lock(mutex_);
      arriving_.push_back(std::move(frame));
      woken_ = true;
    }
    changed_.notify_one();
  }

 private:
  void wake() {
    {
      std::scoped_lock lock(mutex_);
      woken_ = true;
    }
    changed_.notify_one();
  }

  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto now = Clock::now();
      sender_.poll(now);
      while (OutgoingMessage* message = sender_.next(now)) transmit(message);
      const auto next_arrival = take_arrivals(now);
      wait_until(std::min(sender_.next_wakeup(), next_arrival));
    }
    sender_.close();
  }

  void wait_until(Clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    const auto woken = [&] { return woken_; };
    if (deadline == Clock::time_point::max()) {
      changed_.wait(lock, woken);
    } else {
      changed_.wait_until(lock, deadline, woken);
    }
    woken_ = false;
  }

  void transmit(OutgoingMessage* message) {
    const LoopbackFault fault = network_.fault_for(message->job.header);
    if (fault.drop) return sender_.finish(message, Done{});
    LoopbackFrame frame{.from = address_,
                        .header = message->header,
                        .payload = message->job.payload,
                        .flip_payload_bit = fault.flip_payload_bit,
                        .arrives_at = Clock::now() + fault.delay,
                        .lost = false};
    if (fault.flip_header_bit) {
      const size_t bit = *fault.flip_header_bit % (frame.header.size() * 8);
      frame.header[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    const std::string peer = message->job.peer;
    const Result<Done> carried = network_.carry(peer, std::move(frame));
    sender_.finish(message, carried);
    if (!carried.ok()) sender_.fail_peer(peer, carried.failure());
  }

  // Receives what is due; returns when the next frame will be.
  Clock::time_point take_arrivals(Clock::time_point now) {
    {
      std::scoped_lock lock(mutex_);
      for (auto& frame : arriving_) delayed_.emplace(frame.arrives_at, std::move(frame));
      arriving_.clear();
    }
    while (!delayed_.empty() && delayed_.begin()->first <= now) {
      const auto due = delayed_.extract(delayed_.begin());
      if (due.mapped().lost) {
        lose(due.mapped().from);
      } else {
        receive(due.mapped());
      }
    }
    return delayed_.empty() ? Clock::time_point::max() : delayed_.begin()->first;
  }

  void receive(const LoopbackFrame& frame) {
    Landing landing;
    const auto payload = frame.payload.bytes;
    const RejectReason reason = pool_.admit(frame.header, payload.size(), landing);
    const LeaseKey key{landing.header.request_id, landing.header.generation};
    if (reason == RejectReason::kNone) {
      note_feeding(fed_by_[frame.from], key);
      if (!payload.empty()) std::memcpy(landing.target().data(), payload.data(), payload.size());
      if (frame.flip_payload_bit && !payload.empty()) {
        const size_t bit = *frame.flip_payload_bit % (payload.size() * 8);
        landing.target()[bit / 8] ^= std::byte{1} << (bit % 8);
      }
      pool_.deliver(std::move(landing));
    } else if (reason == RejectReason::kNoCredit) {
      pool_.fail_lease(key, credit_failure(landing.header));
    } else if (is_protocol_violation(reason)) {
      fail_fed_by(frame.from, protocol_failure(frame.from, reason));
    }
  }

  // Leases that have ended need not be told of anything.
  void note_feeding(std::set<LeaseKey>& feeding, LeaseKey key) {
    if (!feeding.insert(key).second || feeding.size() <= 2 * pool_.counters().slots) return;
    std::erase_if(feeding, [this](LeaseKey fed) { return !pool_.is_live(fed); });
  }

  void lose(const std::string& peer) {
    const Failure failure{ErrorCode::kUnavailable, "peer " + peer + " is lost"};
    fail_fed_by(peer, failure);
    sender_.fail_peer(peer, failure);
  }

  void fail_fed_by(const std::string& peer, const Failure& failure) {
    for (const LeaseKey key : std::exchange(fed_by_[peer], {})) pool_.fail_lease(key, failure);
  }

  LoopbackNetwork& network_;
  StagingPool pool_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  std::vector<LoopbackFrame> arriving_;

  // The thread's own.
  Sender sender_;
  std::multimap<Clock::time_point, LoopbackFrame> delayed_;
  std::map<std::string, std::set<LeaseKey>> fed_by_;

  const std::string address_;
  std::jthread thread_;
};

void LoopbackNetwork::set_faults(FaultPlan plan) {
  auto shared = plan ? std::make_shared<const FaultPlan>(std::move(plan)) : nullptr;
  std::scoped_lock lock(mutex_);
  plan_ = std::move(shared);
}

void LoopbackNetwork::cut(const std::string& address) {
  std::scoped_lock lock(mutex_);
  cut_.insert(address);
  tell_lost(address);
}

void LoopbackNetwork::restore(const std::string& address) {
  std::scoped_lock lock(mutex_);
  cut_.erase(address);
}

std::string LoopbackNetwork::attach(LoopbackTransport& transport) {
  std::scoped_lock lock(mutex_);
  std::string address = "loopback:" + std::to_string(next_port_++);
  endpoints_[address] = &transport;
  return address;
}

void LoopbackNetwork::detach(const std::string& address) {
  std::scoped_lock lock(mutex_);
  endpoints_.erase(address);
  tell_lost(address);
}

// Both sides of every connection of `address` learn that it is gone.
void LoopbackNetwork::tell_lost(const std::string& address) {
  const auto self = endpoints_.find(address);
  const auto now = Clock::now();
  for (const auto& [other, transport] : endpoints_) {
    if (other == address) continue;
    transport->arrive({.from = address, .payload = {}, .flip_payload_bit = {}, .arrives_at = now, .lost = true});
    if (self == endpoints_.end()) continue;
    self->second->arrive({.from = other, .payload = {}, .flip_payload_bit = {}, .arrives_at = now, .lost = true});
  }
}

LoopbackFault LoopbackNetwork::fault_for(const MessageHeader& header) const {
  std::unique_lock lock(mutex_);
  const auto plan = plan_;
  lock.unlock();
  return plan ? (*plan)(header) : LoopbackFault{};
}

Result<Done> LoopbackNetwork::carry(const std::string& to, LoopbackFrame frame) {
  std::scoped_lock lock(mutex_);
  const auto it = endpoints_.find(to);
  if (it == endpoints_.end() || cut_.contains(to) || cut_.contains(frame.from)) {
    return Failure{ErrorCode::kUnavailable, "peer " + to + " cannot be reached"};
  }
  it->second->arrive(std::move(frame));
  return Done{};
}

std::unique_ptr<Transport> make_loopback_transport(const TransportOptions& options, LoopbackNetwork& network) {
  check_options(options);
  return std::make_unique<LoopbackTransport>(options, network);
}

}  // namespace scd
