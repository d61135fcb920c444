// Gets codes from prefill servers: chooses one, shakes hands, leases staging slots, keeps watch, and goes to the next
// one when it fails. Messages go straight from the transport to the compute thread; this stage's own thread sees only
// what happens a few times per request.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <variant>

#include "common/threads/bounded_queue.h"
#include "common/transport/transport.h"
#include "decode_server/config.h"
#include "decode_server/metrics.h"
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
};

class Receiver : public TransferStage {
 public:
  struct Args {
    const DecodeConfig& config;
    Transport& transport;
    ComputeStage& compute;
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
  std::vector<EndpointReport> endpoints() const { return endpoints_.reports(); }

 private:
  // The last sign of life of a prefill server; written by the transport's, gRPC's and the compute thread.
  struct Activity {
    std::atomic<ServingClock::rep> last{0};  // relaxed: only its age matters
    void touch() { last.store(ServingClock::now().time_since_epoch().count(), std::memory_order_relaxed); }
    ServingClock::time_point at() const {
      return ServingClock::time_point(ServingClock::duration(last.load(std::memory_order_relaxed)));
    }
  };

  // One request; touched by this stage's thread only.
  struct Transfer {
    std::shared_ptr<DecodeJob> job;  // shared as DecodeJob says
    TransferWish wish;
    uint32_t generation = 0;
    std::set<size_t> tried;
    std::optional<size_t> endpoint;
    std::shared_ptr<const v1::GetProducerInfoResponse> info;  // shared with the pool
    std::shared_ptr<const Decoder> decoder;                   // shared with the plan it becomes part of
    TransferToken token{};
    Lease lease;
    std::optional<ServingClock::time_point> waits_for_slots_since;
    std::optional<RemoteClock> clock;
    bool finished = false;
    std::shared_ptr<Activity> activity;  // shared with the callbacks of this try
    CodecDecision decision;              // of this try, once hands are shaken

    TransferKey key() const { return {job->id, generation}; }
    const CodecChoice& codec() const { return *decision.codec; }
    const ConsumerIdentity& consumer() const { return job->model->identity; }
  };

  struct Start {
    std::shared_ptr<DecodeJob> job;
    TransferWish wish;
  };
  struct InfoArrived {
    uint64_t call;
    size_t endpoint;
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
  struct Stop {};
  using Event = std::variant<Start, InfoArrived, EventArrived, StreamEnded, Failed, End, Stop>;

  // A GetProducerInfo call under way.
  struct InfoCall {
    grpc::ClientContext context;
    v1::GetProducerInfoRequest request;
    v1::GetProducerInfoResponse response;
  };

  void run();
  void handle(Event event);
  void stop();
  bool idle() const;
  Transfer* find(TransferKey key);
  ServingClock::time_point next_deadline() const;
  void give_up_on_silent_ones();

  void ask_info(size_t endpoint, TransferKey key);
  void begin_try(Transfer& transfer);
  void shake_hands(Transfer& transfer);
  void choose_codec(Transfer& transfer);
  Result<std::shared_ptr<const Decoder>> decoder_for(const Transfer& transfer);
  void lease_slots(Transfer& transfer);
  void open_stream(Transfer& transfer);
  v1::PrefillCommand start_command(const Transfer& transfer) const;
  void accepted(Transfer& transfer, const EventArrived& arrived);
  void finished(Transfer& transfer, const v1::PrefillFinished& report);
  static bool is_its_fault(const Transfer& transfer, const Failure& failure);
  void fail_try(Transfer& transfer, const Failure& failure);
  void close_try(Transfer& transfer);
  void serve_waiting();
  std::shared_ptr<PrefillStream> stream_of(TransferKey key) const;

  const Args args_;
  EndpointPool endpoints_;
  BoundedQueue<Event> inbox_;
  std::map<uint64_t, Transfer> transfers_;
  std::deque<uint64_t> waiting_;  // requests without staging slots, in order of arrival
  std::map<uint64_t, std::unique_ptr<InfoCall>> info_calls_;
  uint64_t next_info_call_ = 1;
  bool stopping_ = false;
  mutable std::mutex streams_mutex_;
  std::map<TransferKey, std::shared_ptr<PrefillStream>> streams_;  // shared with gRPC's callbacks; until StreamEnded
  std::atomic<int32_t> transfer_count_{0};                         // counters: relaxed, they order nothing
  std::atomic<uint64_t> started_{0};
  std::atomic<uint64_t> failed_{0};
  std::atomic<uint64_t> other_endpoints_{0};
  std::jthread thread_;
};

}  // namespace scd
