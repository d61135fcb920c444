// Gets codes from prefill servers: chooses one, shakes hands, leases staging slots, keeps watch, and goes to the next
// one when it fails; where that is configured it asks a second one beside a slow first one (hedging). Messages go
// straight from the transport to the compute thread; this stage's own thread sees only what happens a few times per
// request.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "common/threads/bounded_queue.h"
#include "common/transport/transport.h"
#include "decode_server/config.h"
#include "decode_server/metrics.h"
#include "decode_server/prefill_forecast.h"
#include "decode_server/receive/endpoint_pool.h"
#include "decode_server/receive/handshake.h"
#include "decode_server/receive/prefill_stream.h"
#include "decode_server/served_model.h"
#include "decode_server/stages.h"

namespace scd {

struct ReceiverCounters {
  int32_t transfers = 0;  // under way, or waiting for staging slots
  int32_t streams = 0;    // Prefill calls that have not ended
  uint64_t started = 0;
  uint64_t failed = 0;           // tries that failed
  uint64_t other_endpoints = 0;  // tries that went to a further endpoint after a failure
  uint64_t hedges = 0;           // tries beside a slow one
};

class Receiver : public TransferStage {
 public:
  struct Args {
    const DecodeConfig& config;
    Transport& transport;
    ComputeStage& compute;
    PrefillForecast& forecast;
    DecodeMetrics& metrics;
  };
  // Connects in the background. Throws Error as EndpointPool.
  explicit Receiver(const Args& args);
  ~Receiver() override;  // abandons what is under way and waits for the calls to end

  void start(std::shared_ptr<DecodeJob> job, TransferWish wish) override;
  void chunk_done(TransferKey key, uint32_t sequence) override;
  void reject(TransferKey key, Failure failure) override;
  void end(uint64_t request_id) override;

  ReceiverCounters counters() const;
  std::vector<EndpointFacts> endpoints() const { return endpoints_.reports(); }

 private:
  // The last sign of life of a prefill server, and whether it owes one: not while all its messages are here, nor while
  // this server has not given back the slots it may fill. Written by the transport's, gRPC's and the compute thread.
  struct Activity {
    std::atomic<ServingClock::rep> last{0};                                // relaxed, as all here: they order nothing
    std::atomic<uint64_t> messages{std::numeric_limits<uint64_t>::max()};  // that will come, once it has accepted
    std::atomic<uint64_t> arrived{0};
    std::atomic<uint64_t> done{0};  // of these; their slots are free
    const uint64_t credit;

    explicit Activity(uint64_t slots) : credit(slots) { touch(); }
    bool owes() const {
      const uint64_t here = arrived.load(std::memory_order_relaxed), freed = done.load(std::memory_order_relaxed);
      return here < messages.load(std::memory_order_relaxed) && here < freed + credit;
    }
    void touch() { last.store(ServingClock::now().time_since_epoch().count(), std::memory_order_relaxed); }
    ServingClock::time_point at() const {
      return ServingClock::time_point(ServingClock::duration(last.load(std::memory_order_relaxed)));
    }
  };

  // Which of two tries of a transfer may deliver: the one whose first message came first. Shared by the callbacks of
  // both, on the transport's thread.
  struct Race {
    std::atomic<uint32_t> winner{0};  // generation; acq_rel: whoever sees it set has lost, or won, for good
    bool admits(uint32_t generation) {
      uint32_t none = 0;
      return winner.compare_exchange_strong(none, generation, std::memory_order_acq_rel) || none == generation;
    }
    uint32_t decided() const { return winner.load(std::memory_order_acquire); }
  };

  // One prefill server that is asked.
  struct Try {
    uint32_t generation = 0;
    std::optional<EndpointPool::Peer> peer;
    std::shared_ptr<const v1::GetProducerInfoResponse> info;  // shared with the pool
    std::shared_ptr<const Decoder> decoder;                   // shared with the plan it becomes part of
    CodecDecision decision;                                   // once hands are shaken
    TransferToken token{};
    Lease lease;
    std::optional<ServingClock::time_point> waits_for_slots_since;
    std::optional<ServingClock::time_point> asked_at;  // for what it is, or the codes; not while slots are waited for
    std::optional<RemoteClock> clock;
    int64_t fresh_tokens = 0;            // that the prefill server said it would compute
    std::optional<TransferPlan> untold;  // accepted, but another try may still deliver
    bool finished = false;
    std::shared_ptr<Activity> activity;  // shared with its callbacks

    const CodecChoice& codec() const { return *decision.codec; }
  };

  // One request; touched by this stage's thread only.
  struct Transfer {
    std::shared_ptr<DecodeJob> job;  // shared as DecodeJob says
    TransferWish wish;
    std::vector<uint64_t> blocks;  // prefix_blocks() of what is handed over
    std::set<PeerId> tried;
    std::set<PeerId> passed_over;       // what they said of themselves was enough
    std::optional<Failure> unsuited{};  // and this is what
    uint32_t generation = 0;            // the last one
    Try lead;
    std::optional<Try> hedge;
    bool hedged = false;         // no further one beside this lead
    std::shared_ptr<Race> race;  // of lead and hedge; null: there is no hedging
    std::optional<FirstTokenForecast> forecast;

    TransferKey key(const Try& which) const { return {job->id, which.generation}; }
    bool leads(const Try& which) const { return &which == &lead; }
    ServedModel& model() const { return *job->model; }
    const ConsumerIdentity& consumer() const { return job->model->identity; }
  };
  struct Found {
    Transfer* transfer = nullptr;
    Try* which = nullptr;
    explicit operator bool() const { return transfer != nullptr; }
  };

  struct Start {
    std::shared_ptr<DecodeJob> job;
    TransferWish wish;
  };
  struct InfoArrived {
    uint64_t call;
    EndpointPool::Peer peer;
    TransferKey key;  // of the try that waits for it; request 0: none
    Result<v1::GetProducerInfoResponse> info;
  };
  struct EventArrived {
    TransferKey key;
    v1::PrefillEvent event;
    ServingClock::time_point started_at;
    ServingClock::time_point received_at;
  };
  struct StreamEnded {
    TransferKey key;
    Result<Done> status;
  };
  struct Failed {
    TransferKey key;
    Failure failure;
  };
  struct End {
    uint64_t request_id;
  };
  struct Look {};  // a race is decided
  struct Stop {};
  using Event = std::variant<Start, InfoArrived, EventArrived, StreamEnded, Failed, End, Look, Stop>;

  // A GetProducerInfo call under way.
  struct InfoCall {
    grpc::ClientContext context;
    v1::GetProducerInfoRequest request;
    v1::GetProducerInfoResponse response;
  };

  void run();
  void open(Start start);
  void handle(Event event);
  void stop();
  bool idle() const;
  static std::string salt_of(const Transfer& transfer);
  Found find(TransferKey key);
  ServingClock::time_point next_deadline() const;
  void give_up_on_silent_ones();

  // receiver_try.cpp
  void ask_info(const EndpointPool::Peer& peer, TransferKey key);
  std::optional<EndpointPool::Peer> acquire(Transfer& transfer);
  std::set<PeerId> unsuited(Transfer& transfer);
  void begin(Transfer& transfer, EndpointPool::Peer peer);
  void pass_over(Transfer& transfer, Try& which, const Failure& why);
  void ask(Transfer& transfer, Try& which);
  void shake_hands(Transfer& transfer, Try& which);
  void choose_codec(const Transfer& transfer, Try& which);
  bool stays_here(Transfer& transfer);
  Result<std::shared_ptr<const Decoder>> decoder_for(const Transfer& transfer, const Try& which);
  size_t slots_to_lease() const;
  void lease_slots(Transfer& transfer, Try& which);
  void open_stream(Transfer& transfer, Try& which);
  v1::PrefillCommand start_command(const Transfer& transfer, const Try& which) const;
  void accepted(Transfer& transfer, Try& which, const EventArrived& arrived);
  void take_spans(const Transfer& transfer, const Try& which, std::span<const TransferSpan> spans);
  void learn_rate(const Try& which, std::span<const TransferSpan> spans, uint64_t computed_us);
  void finished(Transfer& transfer, Try& which, const v1::PrefillFinished& report);
  // Who failed: of our own failures a prefill server's health does not suffer.
  enum class Side : uint8_t { kTheirs, kOurs };
  void fail(Transfer& transfer, Try& which, const Failure& failure, Side side = Side::kTheirs);
  void blame(const Transfer& transfer, const Try& which, const Failure& failure);
  void count_failure(const Transfer& transfer, const Try& which, const Failure& named);
  void close(const Transfer& transfer, Try& which);
  void close(Transfer& transfer);
  void serve_waiting();

  // receiver_hedge.cpp
  std::optional<ServingClock::time_point> hedge_at(const Transfer& transfer) const;
  void hedge_slow_ones();
  void settle_races();
  bool enters(Race& race, uint32_t generation);
  void drop_hedge(Transfer& transfer);
  bool promote_hedge(Transfer& transfer);
  std::shared_ptr<PrefillStream> stream_of(TransferKey key) const;
  std::shared_ptr<Activity> activity_of(TransferKey key) const;

  const Args args_;
  EndpointPool endpoints_;
  BoundedQueue<Event> inbox_;
  std::map<uint64_t, Transfer> transfers_;
  std::deque<TransferKey> waiting_;  // tries without staging slots, in order of arrival
  std::map<uint64_t, std::unique_ptr<InfoCall>> info_calls_;
  uint64_t next_info_call_ = 1;
  ServingClock::time_point watch_at_ = ServingClock::time_point::max();  // of the pool
  bool stopping_ = false;
  mutable std::mutex streams_mutex_;
  std::map<TransferKey, std::shared_ptr<PrefillStream>> streams_;  // shared with gRPC's callbacks; until StreamEnded
  std::map<TransferKey, std::shared_ptr<Activity>> activities_;    // of tries with a lease; under streams_mutex_
  std::atomic<int32_t> transfer_count_{0};                         // counters: relaxed, they order nothing
  std::atomic<uint64_t> started_{0};
  std::atomic<uint64_t> failed_{0};
  std::atomic<uint64_t> other_endpoints_{0};
  std::atomic<uint64_t> hedges_{0};
  std::jthread thread_;
};

}  // namespace scd
