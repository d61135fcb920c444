#include "decode_server/receive/receiver.h"

#include <pthread.h>

#include <algorithm>
#include <utility>
#include <vector>

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
  const auto stream = stream_of(key);
  if (stream == nullptr) return;
  v1::PrefillCommand command;
  command.mutable_chunk_done()->set_sequence(sequence);
  stream->send(std::move(command));
}

ReceiverCounters Receiver::counters() const {
  std::scoped_lock lock(streams_mutex_);
  return {.transfers = transfer_count_.load(std::memory_order_relaxed),
          .streams = static_cast<int32_t>(streams_.size()),
          .started = started_.load(std::memory_order_relaxed),
          .failed = failed_.load(std::memory_order_relaxed),
          .other_endpoints = other_endpoints_.load(std::memory_order_relaxed)};
}

std::shared_ptr<PrefillStream> Receiver::stream_of(TransferKey key) const {
  std::scoped_lock lock(streams_mutex_);
  const auto found = streams_.find(key);
  return found == streams_.end() ? nullptr : found->second;
}

void Receiver::run() {
  for (size_t endpoint = 0; endpoint < endpoints_.size(); ++endpoint) ask_info(endpoint, {});
  while (!stopping_ || !idle()) {
    if (auto event = inbox_.pop_until(next_deadline())) handle(std::move(*event));
    while (auto event = inbox_.try_pop()) handle(std::move(*event));
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
  for (auto& [id, transfer] : transfers_) close_try(transfer);
  transfers_.clear();
  for (auto& [id, call] : info_calls_) call->context.TryCancel();
  std::scoped_lock lock(streams_mutex_);
  for (auto& [key, stream] : streams_) stream->cancel();
}

void Receiver::handle(Event event) {
  const auto visitor = Overloaded{
      [&](Start& start) {
        if (stopping_) return;
        Transfer& transfer = transfers_[start.job->id];
        transfer.job = std::move(start.job);
        transfer.wish = start.wish;
        transfer.generation = start.wish.tries_before;
        begin_try(transfer);
      },
      [&](InfoArrived& arrived) {
        info_calls_.erase(arrived.call);
        if (arrived.info) endpoints_.set_info(arrived.endpoint, arrived.info.value());
        Transfer* transfer = find(arrived.key);
        if (transfer == nullptr) return;
        if (!arrived.info) return fail_try(*transfer, arrived.info.failure());
        shake_hands(*transfer);
      },
      [&](EventArrived& arrived) {
        Transfer* transfer = find(arrived.key);
        if (transfer == nullptr) return;
        if (arrived.event.has_accepted()) accepted(*transfer, arrived);
        if (arrived.event.has_finished()) finished(*transfer, arrived.event.finished());
        if (arrived.event.has_failed()) {
          fail_try(*transfer, to_failure(arrived.event.failed().code(), arrived.event.failed().message()));
        }
      },
      [&](StreamEnded& ended) {
        {
          std::scoped_lock lock(streams_mutex_);
          streams_.erase(ended.key);
        }
        Transfer* transfer = find(ended.key);
        if (transfer == nullptr || transfer->finished) return;
        fail_try(*transfer, ended.status ? Failure{ErrorCode::kUnavailable, "it ended the stream before the codes"}
                                         : ended.status.failure());
      },
      [&](Failed& failed) {
        if (Transfer* transfer = find(failed.key)) fail_try(*transfer, failed.failure);
      },
      [&](End& end) {
        const auto found = transfers_.find(end.request_id);
        if (found == transfers_.end()) return;
        close_try(found->second);
        transfers_.erase(found);
      },
      [&](Stop&) { stop(); },
  };
  std::visit(visitor, event);
}

Receiver::Transfer* Receiver::find(TransferKey key) {
  const auto found = transfers_.find(key.request_id);
  return found == transfers_.end() || found->second.generation != key.generation ? nullptr : &found->second;
}

ServingClock::time_point Receiver::next_deadline() const {
  // Slots that the compute thread still reads when their lease is closed come free without an event.
  auto deadline = waiting_.empty() ? ServingClock::time_point::max() : ServingClock::now() + kLookForSlots;
  for (const auto& [id, transfer] : transfers_) {
    if (transfer.activity == nullptr) continue;
    deadline = std::min(deadline, transfer.activity->at() + args_.config.prefill.silence_timeout);
  }
  return deadline;
}

void Receiver::give_up_on_silent_ones() {
  const auto limit = ServingClock::now() - args_.config.prefill.silence_timeout;
  std::vector<TransferKey> silent;
  for (const auto& [id, transfer] : transfers_) {
    if (transfer.activity != nullptr && transfer.activity->at() <= limit) silent.push_back(transfer.key());
  }
  for (const TransferKey key : silent) {
    fail_try(*find(key),
             {ErrorCode::kUnavailable,
              "it sent nothing for " + std::to_string(args_.config.prefill.silence_timeout.count()) + " ms"});
  }
}

void Receiver::ask_info(size_t endpoint, TransferKey key) {
  const uint64_t number = next_info_call_++;
  InfoCall& call = *info_calls_.emplace(number, std::make_unique<InfoCall>()).first->second;
  call.context.set_deadline(std::chrono::system_clock::now() + args_.config.prefill.silence_timeout);
  endpoints_.stub(endpoint).async()->GetProducerInfo(
      &call.context, &call.request, &call.response, [this, number, endpoint, key, &call](const grpc::Status& status) {
        using Info = Result<v1::GetProducerInfoResponse>;
        inbox_.push(InfoArrived{number, endpoint, key, status.ok() ? Info(call.response) : Info(to_failure(status))});
      });
}

// Not when the request ended, or wants what two different models cannot give.
bool Receiver::is_its_fault(const Transfer& transfer, const Failure& failure) {
  if (transfer.job->cancelled() || ServingClock::now() >= transfer.job->deadline) return false;
  return !transfer.job->request.needs_one_model() || failure.code != ErrorCode::kFailedPrecondition;
}

void Receiver::fail_try(Transfer& transfer, const Failure& failure) {
  const TransferKey key = transfer.key();
  Failure named = failure;
  if (transfer.endpoint) {
    named.message = "prefill server " + endpoints_.address(*transfer.endpoint) + ": " + failure.message;
    if (is_its_fault(transfer, failure)) endpoints_.failed(*transfer.endpoint, failure);
  }
  failed_.fetch_add(1, std::memory_order_relaxed);
  args_.metrics.transfer_failures
      .of({transfer.endpoint ? endpoints_.address(*transfer.endpoint) : "", std::string(to_string(named.code))})
      ->add();
  log_warning("transfer_failed", {{"request", key.request_id},
                                  {"generation", key.generation},
                                  {"code", to_string(named.code)},
                                  {"reason", named.message}});
  close_try(transfer);
  const bool elsewhere = args_.config.fallback.other_endpoint && named.code != ErrorCode::kInvalidArgument &&
                         transfer.tried.size() < endpoints_.size();
  if (elsewhere) {
    other_endpoints_.fetch_add(1, std::memory_order_relaxed);
    args_.metrics.count_fallback("other_endpoint", named);
    return begin_try(transfer);
  }
  transfers_.erase(key.request_id);
  args_.compute.transfer_failed(key, std::move(named));
}

void Receiver::close_try(Transfer& transfer) {
  transfer.lease.close();
  transfer.activity.reset();
  transfer.waits_for_slots_since.reset();
  if (!transfer.finished) {
    if (const auto stream = stream_of(transfer.key())) stream->cancel();
  }
  if (transfer.endpoint) endpoints_.release(*transfer.endpoint);
  transfer.endpoint.reset();
}

void Receiver::serve_waiting() {
  while (!waiting_.empty()) {
    const auto found = transfers_.find(waiting_.front());
    if (found == transfers_.end() || !found->second.waits_for_slots_since) {
      waiting_.pop_front();
      continue;
    }
    lease_slots(found->second);
    const auto still = transfers_.find(waiting_.front());
    if (still != transfers_.end() && still->second.waits_for_slots_since) return;
    waiting_.pop_front();
  }
}

}  // namespace scd
