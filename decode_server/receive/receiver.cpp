#include "decode_server/receive/receiver.h"

#include <pthread.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/sha256.h"
#include "common/log/log.h"
#include "common/rpc/status.h"

namespace scd {
namespace {

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};

// Far more than a request causes; a full inbox only delays gRPC's callbacks.
constexpr size_t kEventsPerJob = 16;
constexpr std::chrono::milliseconds kLookForSlots{5};

}  // namespace

// Codes of another encoder are none of this one's.
std::string Receiver::salt_of(const Transfer& transfer) {
  std::string salt = transfer.job->request.cache_salt;
  if (transfer.consumer().artifact) salt += to_hex(transfer.consumer().artifact->encoder_id);
  return salt;
}

Receiver::Receiver(const Args& args)
    : args_(args),
      endpoints_(args.config.prefill, args.config.grpc),
      inbox_(kEventsPerJob * static_cast<size_t>(args.config.limits.max_running) + 64),
      thread_([this] {
        pthread_setname_np(pthread_self(), "receive");
        run();
      }) {}

Receiver::~Receiver() { inbox_.push(Stop{}); }

void Receiver::start(std::shared_ptr<DecodeJob> job, TransferWish wish) { inbox_.push(Start{std::move(job), wish}); }
void Receiver::reject(TransferKey key, Failure failure) { inbox_.push(Failed{key, std::move(failure)}); }
void Receiver::end(uint64_t request_id) { inbox_.push(End{request_id}); }

void Receiver::chunk_done(TransferKey key, uint32_t sequence) {
  if (const auto activity = activity_of(key)) {
    activity->touch();
    activity->done.fetch_add(1, std::memory_order_relaxed);
  }
  const auto stream = stream_of(key);
  if (stream == nullptr) return;
  v1::PrefillCommand command;
  command.mutable_chunk_done()->add_sequence(sequence);
  stream->send(std::move(command));
}

ReceiverCounters Receiver::counters() const {
  std::scoped_lock lock(streams_mutex_);
  return {.transfers = transfer_count_.load(std::memory_order_relaxed),
          .streams = static_cast<int32_t>(streams_.size()),
          .started = started_.load(std::memory_order_relaxed),
          .failed = failed_.load(std::memory_order_relaxed),
          .other_endpoints = other_endpoints_.load(std::memory_order_relaxed),
          .hedges = hedges_.load(std::memory_order_relaxed)};
}

std::shared_ptr<PrefillStream> Receiver::stream_of(TransferKey key) const {
  std::scoped_lock lock(streams_mutex_);
  const auto found = streams_.find(key);
  return found == streams_.end() ? nullptr : found->second;
}

std::shared_ptr<Receiver::Activity> Receiver::activity_of(TransferKey key) const {
  std::scoped_lock lock(streams_mutex_);
  const auto found = activities_.find(key);
  return found == activities_.end() ? nullptr : found->second;
}

void Receiver::run() {
  for (const EndpointPool::Peer& peer : endpoints_.peers()) ask_info(peer, {});
  while (!stopping_ || !idle()) {
    if (auto event = inbox_.pop_until(next_deadline())) handle(std::move(*event));
    while (auto event = inbox_.try_pop()) handle(std::move(*event));
    if (!stopping_) watch_at_ = endpoints_.watch();
    settle_races();
    hedge_slow_ones();
    give_up_on_silent_ones();
    serve_waiting();
    transfer_count_.store(static_cast<int32_t>(transfers_.size()), std::memory_order_relaxed);
  }
}

bool Receiver::idle() const {
  std::scoped_lock lock(streams_mutex_);
  return streams_.empty() && info_calls_.empty();
}

void Receiver::stop() {
  stopping_ = true;
  for (auto& [id, transfer] : transfers_) close(transfer);
  transfers_.clear();
  for (auto& [id, call] : info_calls_) call->context.TryCancel();
  std::scoped_lock lock(streams_mutex_);
  for (auto& [key, stream] : streams_) stream->cancel();
}

void Receiver::open(Start start) {
  if (stopping_) return;
  Transfer& transfer = transfers_[start.job->id];
  transfer.job = std::move(start.job);
  transfer.wish = start.wish;
  transfer.generation = start.wish.tries_before;
  const auto handed = std::span(transfer.job->request.prompt).first(static_cast<size_t>(transfer.wish.handover_tokens));
  transfer.blocks = prefix_blocks(handed, salt_of(transfer));
  if (auto peer = acquire(transfer)) return begin(transfer, std::move(*peer));
  fail(transfer, transfer.lead, transfer.unsuited.value_or(endpoints_.nobody()));
}

void Receiver::handle(Event event) {
  const auto visitor = Overloaded{
      [&](Start& start) { open(std::move(start)); },
      [&](InfoArrived& arrived) {
        info_calls_.erase(arrived.call);
        if (arrived.info) endpoints_.set_info(arrived.peer, arrived.info.value());
        const Found found = find(arrived.key);
        if (!found) return;
        if (!arrived.info) {
          started_.fetch_add(1, std::memory_order_relaxed);
          return fail(*found.transfer, *found.which, arrived.info.failure());
        }
        shake_hands(*found.transfer, *found.which);
      },
      [&](EventArrived& arrived) {
        if (arrived.event.has_accepted()) {
          if (const Found found = find(arrived.key)) accepted(*found.transfer, *found.which, arrived);
        }
        if (arrived.event.has_finished()) {
          if (const Found found = find(arrived.key)) finished(*found.transfer, *found.which, arrived.event.finished());
        }
        if (arrived.event.has_failed()) {
          const v1::PrefillFailed& failed = arrived.event.failed();
          const Found found = find(arrived.key);
          if (found) fail(*found.transfer, *found.which, to_failure(failed.code(), failed.message()));
        }
      },
      [&](StreamEnded& ended) {
        {
          std::scoped_lock lock(streams_mutex_);
          streams_.erase(ended.key);
        }
        const Found found = find(ended.key);
        if (!found || found.which->finished) return;
        fail(*found.transfer, *found.which,
             ended.status ? Failure{ErrorCode::kUnavailable, "it ended the stream before the codes"}
                          : ended.status.failure());
      },
      [&](Failed& failed) {
        if (const Found found = find(failed.key)) fail(*found.transfer, *found.which, failed.failure);
      },
      [&](End& end) {
        const auto found = transfers_.find(end.request_id);
        if (found == transfers_.end()) return;
        close(found->second);
        transfers_.erase(found);
      },
      [&](Look&) {},
      [&](Stop&) { stop(); },
  };
  std::visit(visitor, event);
}

Receiver::Found Receiver::find(TransferKey key) {
  const auto found = transfers_.find(key.request_id);
  if (found == transfers_.end()) return {};
  Transfer& transfer = found->second;
  if (transfer.lead.generation == key.generation) return {&transfer, &transfer.lead};
  if (transfer.hedge && transfer.hedge->generation == key.generation) return {&transfer, &*transfer.hedge};
  return {};
}

ServingClock::time_point Receiver::next_deadline() const {
  // Slots that the compute thread still reads when their lease is closed come free without an event.
  auto deadline = waiting_.empty() ? watch_at_ : std::min(watch_at_, ServingClock::now() + kLookForSlots);
  // One that owes nothing may do so from now on: no earlier than this can its silence have lasted too long.
  const auto consider = [&](const Try& which) {
    if (which.activity == nullptr) return;
    const auto since = which.activity->owes() ? which.activity->at() : ServingClock::now();
    deadline = std::min(deadline, since + args_.config.prefill.silence_timeout);
  };
  for (const auto& [id, transfer] : transfers_) {
    consider(transfer.lead);
    if (transfer.hedge) consider(*transfer.hedge);
    if (const auto at = hedge_at(transfer)) deadline = std::min(deadline, *at);
  }
  return deadline;
}

void Receiver::give_up_on_silent_ones() {
  const auto limit = ServingClock::now() - args_.config.prefill.silence_timeout;
  std::vector<TransferKey> silent;
  const auto consider = [&](const Transfer& transfer, const Try& which) {
    const bool owes = which.activity != nullptr && which.activity->owes();
    if (owes && which.activity->at() <= limit) silent.push_back(transfer.key(which));
  };
  for (const auto& [id, transfer] : transfers_) {
    consider(transfer, transfer.lead);
    if (transfer.hedge) consider(transfer, *transfer.hedge);
  }
  for (const TransferKey key : silent) {
    const Found found = find(key);
    if (!found) continue;
    fail(*found.transfer, *found.which,
         {ErrorCode::kUnavailable,
          "it sent nothing for " + std::to_string(args_.config.prefill.silence_timeout.count()) + " ms"});
  }
}

void Receiver::serve_waiting() {
  while (!waiting_.empty()) {
    const TransferKey key = waiting_.front();
    if (const Found found = find(key); found && found.which->waits_for_slots_since) {
      lease_slots(*found.transfer, *found.which);
      const Found still = find(key);
      if (still && still.which->waits_for_slots_since) return;
    }
    waiting_.pop_front();
  }
}

}  // namespace scd
