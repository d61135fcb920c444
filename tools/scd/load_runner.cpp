#include "tools/scd/load_runner.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "common/base/error.h"

namespace scd {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTellProgress{200};

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// What the calls of a run tell its thread.
struct Ended {
  std::mutex mutex;
  std::condition_variable changed;
  size_t done = 0;  // guarded, as the others
  size_t failed = 0;
  Clock::time_point last{};
  bool stopped = false;
};

// Lives until OnDone.
class Call final : public grpc::ClientReadReactor<v1::CompleteStreamResponse> {
 public:
  Call(v1::CompletionService::Stub& stub, const v1::CompleteRequest& request, Clock::time_point arrival,
       std::chrono::milliseconds timeout, Ended& ended)
      : arrival_(arrival), ended_(ended) {
    context_.set_deadline(std::chrono::system_clock::now() + timeout);
    stub.async()->CompleteStream(&context_, &request, this);
    StartRead(&response_);
    StartCall();
  }

  void cancel() { context_.TryCancel(); }
  LoadRecord take() { return std::move(record_); }  // after OnDone

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.has_delta()) count_token(Clock::now(), response_.delta().token_ids_size());
    if (response_.has_finish()) read_finish(response_.finish());
    StartRead(&response_);
  }

  void count_token(Clock::time_point now, int ids) {
    if (record_.output_tokens == 0) {
      record_.ttft_ms = ms_between(arrival_, now);
    } else {
      record_.itl_ms.push_back(ms_between(last_token_, now));
    }
    record_.output_tokens += ids;
    last_token_ = now;
  }

  void read_finish(const v1::Finish& finish) {
    const v1::TransferAccount& account = finish.transfer();
    record_.prompt_tokens = finish.usage().prompt_tokens();
    const int64_t kept = account.prefix_cached_tokens();  // which no hand-over brought
    record_.prefix_cached_tokens = kept;
    record_.cached_tokens = std::max<int64_t>(account.cached_tokens() - kept, 0);
    record_.handover_tokens = account.handover_tokens() - kept;
    record_.wire_bytes = static_cast<int64_t>(account.wire_bytes());
    record_.orchestration_ms = account.orchestration_ms();
    if (account.has_predicted_transfer_ms()) record_.predicted_transfer_ms = account.predicted_transfer_ms();
    record_.measured_transfer_ms = account.measured_transfer_ms();
    if (account.has_predicted_first_token_ms()) record_.predicted_first_token_ms = account.predicted_first_token_ms();
    record_.measured_first_token_ms = account.measured_first_token_ms();
    record_.computed_there = account.has_predicted_first_token_ms() && account.codec() == v1::CODEC_ORACLE;
    record_.fell_back = !account.fallback_reason().empty();
  }

  void OnDone(const grpc::Status& status) override {
    const auto now = Clock::now();
    record_.e2e_ms = ms_between(arrival_, now);
    if (!status.ok()) {
      record_.error =
          std::string(to_string(static_cast<ErrorCode>(status.error_code()))) + ": " + status.error_message();
    }
    const std::scoped_lock lock(ended_.mutex);
    ++ended_.done;
    ended_.failed += status.ok() ? 0 : 1;
    ended_.last = now;
    ended_.changed.notify_all();  // under the lock: afterwards all this may be gone
  }

  const Clock::time_point arrival_;
  Ended& ended_;
  grpc::ClientContext context_;
  v1::CompleteStreamResponse response_;
  LoadRecord record_;
  Clock::time_point last_token_;
};

}  // namespace

LoadRunner::LoadRunner(const ClientOptions& client) : client_(client), stub_(make_stub(client)) {}

LoadRun LoadRunner::run(const Args& args) {
  const size_t count = args.requests.size();
  const bool closed = args.arrivals.empty();
  const auto start = Clock::now();
  const auto arrival = [&](size_t i) {
    return start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(args.arrivals[i]));
  };
  Ended ended;
  std::vector<std::unique_ptr<Call>> calls;
  const std::stop_callback on_stop(args.stop, [&ended] {
    const std::scoped_lock lock(ended.mutex);
    ended.stopped = true;
    ended.changed.notify_all();
  });
  std::unique_lock lock(ended.mutex);
  while (ended.done < count && !ended.stopped) {
    const bool due = calls.size() < count && (closed ? calls.size() - ended.done < static_cast<size_t>(args.concurrency)
                                                     : Clock::now() >= arrival(calls.size()));
    if (due) {
      const size_t i = calls.size();
      lock.unlock();
      calls.push_back(
          std::make_unique<Call>(*stub_, args.requests[i], closed ? Clock::now() : arrival(i), client_.timeout, ended));
      lock.lock();
      continue;
    }
    const LoadProgress seen{ended.done, count, calls.size() - ended.done, ended.failed};
    lock.unlock();
    args.progress(seen);
    lock.lock();
    auto wake = Clock::now() + kTellProgress;
    if (!closed && calls.size() < count) wake = std::min(wake, arrival(calls.size()));
    ended.changed.wait_until(lock, wake, [&] { return ended.done != seen.done || ended.stopped; });
  }
  if (ended.stopped) {
    lock.unlock();
    for (const auto& call : calls) call->cancel();
    lock.lock();
    ended.changed.wait(lock, [&] { return ended.done == calls.size(); });
    throw Error(ErrorCode::kCancelled, "interrupted");
  }
  LoadRun result{.records = {}, .seconds = ms_between(start, ended.last) / 1e3};
  for (const auto& call : calls) result.records.push_back(call->take());
  return result;
}

v1::ModelCard LoadRunner::model() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + client_.timeout);
  v1::ListModelsResponse response;
  throw_if_failed(stub_->ListModels(&context, {}, &response), client_.server);
  if (response.models_size() == 0) throw Error(ErrorCode::kNotFound, client_.server + " serves no model");
  return response.models(0);
}

}  // namespace scd
