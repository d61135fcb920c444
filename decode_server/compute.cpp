#include "decode_server/compute.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <future>
#include <new>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/check.h"
#include "common/device/needing_memory.h"
#include "common/log/log.h"
#include "kernels/device.h"

namespace scd {
namespace {

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};

// Events of one job between two pieces of work, generously: more of them means that a bound elsewhere is broken.
constexpr size_t kEventsPerJob = 16;
constexpr size_t kEventsPerTry = 4;

const Failure kShuttingDown{ErrorCode::kUnavailable, "the server is shutting down; send the request to another one"};

}  // namespace

Failure out_of_memory(const std::bad_alloc& error) {
  return {ErrorCode::kResourceExhausted, std::string("memory of the decode server: ") + error.what()};
}

ComputeThread::ComputeThread(const Args& args)
    : args_(args),
      step_tokens_(args.config.limits.step_tokens(args.model.device() == kernels::Device::kGpu)),
      step_(needing_memory({"workspaces of " + std::to_string(args.config.limits.max_running) + " answers",
                            "lower limits.max_running or " + args.cache.sized_by()},
                           [&] { return DecodeStep(args.model, args.cache, args.config.limits.max_running); })),
      inbox_(args.config.transport.slots +
             (kEventsPerJob + kEventsPerTry * kMostTries) * static_cast<size_t>(args.config.limits.max_running) + 64),
      kept_codes_{.limit_bytes = size_t{1048576} * static_cast<size_t>(args.config.limits.kept_codes_mib)} {}

ComputeThread::~ComputeThread() { stop(); }

void ComputeThread::start(TransferStage& transfers) {
  std::promise<void> warm;
  std::future<void> is_warm = warm.get_future();
  thread_ = std::jthread([this, &transfers, &warm] {
    pthread_setname_np(pthread_self(), "compute");
    if (args_.config.threads > 0) omp_set_num_threads(args_.config.threads);
    try {
      warm_up();
    } catch (...) {
      warm.set_exception(std::current_exception());
      return;
    }
    warm.set_value();
    run(transfers);
  });
  is_warm.get();
}

void ComputeThread::stop() {
  request_stop();
  if (thread_.joinable()) thread_.join();
  refuse_the_rest();
}

void ComputeThread::post(Event event) {
  // Never blocks, for the sake of the transport's thread; its capacity follows from slots and admitted jobs.
  SCD_CHECK(inbox_.try_push(std::move(event)) || inbox_.closed(), "the compute inbox overflowed");
}

void ComputeThread::admit(std::shared_ptr<DecodeJob> job) {
  if (inbox_.try_push(Admitted{job})) return;
  SCD_CHECK(inbox_.closed(), "the compute inbox overflowed");
  refuse(*job, kShuttingDown);
}

void ComputeThread::wake() {
  if (!wake_posted_.exchange(true, std::memory_order_acq_rel)) post(Wake{});
}

void ComputeThread::transfer_accepted(TransferKey key, TransferPlan plan) { post(Accepted{key, std::move(plan)}); }
void ComputeThread::message_arrived(TransferKey key, ReceivedMessage message) {
  post(Arrived{key, std::move(message)});
}
void ComputeThread::transfer_restarted(TransferKey key) { post(Restarted{key}); }
void ComputeThread::transfer_declined(TransferKey key, LocalChoice choice) { post(Declined{key, std::move(choice)}); }
void ComputeThread::transfer_finished(TransferKey key) { post(Finished{key}); }
void ComputeThread::transfer_failed(TransferKey key, Failure failure) { post(Failed{key, std::move(failure)}); }

ComputeCounters ComputeThread::counters() const {
  return {.sequences = sequence_count_.load(std::memory_order_relaxed),
          .completed = completed_.load(std::memory_order_relaxed),
          .failed = failed_.load(std::memory_order_relaxed),
          .cancelled = cancelled_.load(std::memory_order_relaxed),
          .local_fallbacks = local_fallbacks_.load(std::memory_order_relaxed),
          .preemptions = preemptions_.load(std::memory_order_relaxed),
          .answer_steps = answer_steps_.load(std::memory_order_relaxed),
          .answer_steps_ahead = answer_steps_ahead_.load(std::memory_order_relaxed)};
}

void ComputeThread::warm_up() {
  const int64_t page_tokens = args_.cache.pool().page_tokens();
  const int64_t room = std::min(page_tokens * args_.cache.pool().pages(), int64_t{args_.model.config().max_positions});
  const int64_t chunk = std::min(int64_t{args_.config.limits.prefill_chunk_tokens}, room);
  // On a GPU a whole chunk: its memory is taken, and cuBLASLt is opened, before anybody waits for it.
  const bool on_gpu = args_.model.device() == kernels::Device::kGpu;
  const int64_t step = on_gpu ? std::max(chunk, std::min(step_tokens_, room)) : 2 * page_tokens;
  needing_memory({"workspaces of a step of " + std::to_string(step) + " tokens",
                  "lower limits.max_batched_tokens and limits.prefill_chunk_tokens, or " + args_.cache.sized_by()},
                 [&] { compute_for_warmth(step); });
  needing_memory({"steps of " + std::to_string(args_.config.limits.max_running) + " answers",
                  "lower limits.max_running, or " + args_.cache.sized_by()},
                 [&] { record_steps(); });
  const PrefillOptions& prefill = args_.config.prefill;
  if (prefill.local == LocalPrefill::kOff || prefill.endpoints.empty()) return;
  // Prompts are handed over until it is known how fast this server would be.
  const auto begin = ServingClock::now();
  compute_for_warmth(chunk);
  args_.forecast.computed_here(chunk, ServingClock::now() - begin);
}

// On a GPU: steps of answers, and the memory that sampling from their logits takes.
void ComputeThread::record_steps() {
  if (args_.model.device() == kernels::Device::kCpu) return;
  const auto begin = ServingClock::now();
  const size_t free_before = kernels::gpu_memory().free_bytes;
  const bool adapters = may_have_adapters(args_.config);
  const auto [logits, recorded, with_adapters] = step_.record(args_.config.limits.recorded_batch, adapters);
  const size_t free_now = std::min(kernels::gpu_memory().free_bytes, free_before);
  const std::chrono::duration<double> took = ServingClock::now() - begin;
  log_info("decode_steps_recorded", {{"largest_batch", recorded},
                                     {"with_adapters", with_adapters},
                                     {"mib", (free_before - free_now) >> 20},
                                     {"seconds", took.count()}});
  const int64_t wanted = std::min(args_.config.limits.recorded_batch, args_.config.limits.max_running);
  if (recorded < wanted || (adapters && with_adapters < wanted)) {
    log_warning("decode_steps_not_recorded",
                {{"reason", "GPU memory"}, {"next", "lower limits.recorded_batch or " + args_.cache.sized_by()}});
  }
  next_tokens_.warm_up(logits);
}

void ComputeThread::compute_for_warmth(int64_t count) {
  const std::vector<TokenId> tokens(static_cast<size_t>(count), 0);
  PageTable pages = args_.cache.pool().make_table();
  if (auto reserved = pages.reserve(std::ssize(tokens)); !reserved) throw Error(reserved.failure());
  const SequenceChunk chunk{.pages = &pages, .first_position = 0, .tokens = tokens};
  forward_last_logits(args_.model, args_.cache, std::span(&chunk, 1));
}

void ComputeThread::run(TransferStage& transfers) {
  while (true) {
    while (auto event = inbox_.try_pop()) handle(std::move(*event), transfers);
    if (inbox_.closed()) break;
    end_what_is_over();
    if (work_once()) continue;
    if (auto event = inbox_.pop_until(next_deadline())) handle(std::move(*event), transfers);
  }
  if (!queued_.empty()) kernels::synchronize(args_.model.device());
  queued_.clear();
  while (!sequences_.empty()) {
    fail(sequences_.begin(), kShuttingDown);
  }
  batch_.reset();
  refuse_the_rest();
}

void ComputeThread::handle(Event event, TransferStage& transfers) {
  const auto visitor = Overloaded{
      [&](Admitted& admitted) {
        const SequenceContext context{args_.config, args_.model,    args_.cache, args_.prefixes, args_.tokenizer,
                                      transfers,    args_.forecast, kept_codes_, next_tokens_};
        try {
          sequences_.push_back(std::make_unique<Sequence>(context, admitted.job));
        } catch (const std::bad_alloc& error) {
          return refuse(*admitted.job, out_of_memory(error));
        }
        sequence_count_.fetch_add(1, std::memory_order_relaxed);
      },
      [&](Accepted& accepted) {
        Sequence* sequence = find(accepted.key.request_id);
        if (sequence == nullptr) return;
        try {
          sequence->transfer_accepted(accepted.key, std::move(accepted.plan));
        } catch (const std::bad_alloc& error) {
          fail(std::ranges::find(sequences_, sequence, &std::unique_ptr<Sequence>::get), out_of_memory(error));
        }
      },
      [&](Arrived& arrived) {
        Sequence* sequence = find(arrived.key.request_id);
        if (sequence != nullptr) sequence->message_arrived(arrived.key, std::move(arrived.message));
      },
      [&](Restarted& restarted) {
        Sequence* sequence = find(restarted.key.request_id);
        if (sequence != nullptr) sequence->transfer_restarted(restarted.key);
      },
      [&](Declined& declined) {
        Sequence* sequence = find(declined.key.request_id);
        if (sequence != nullptr) sequence->transfer_declined(declined.key, std::move(declined.choice));
      },
      [&](Finished& finished) {
        Sequence* sequence = find(finished.key.request_id);
        if (sequence != nullptr) sequence->transfer_finished(finished.key);
      },
      [&](Failed& failed) {
        const auto at = std::find_if(sequences_.begin(), sequences_.end(),
                                     [&](const auto& sequence) { return sequence->job().id == failed.key.request_id; });
        if (at == sequences_.end()) return;
        const bool had_fallen_back = (*at)->fell_back();
        const auto outcome = (*at)->transfer_failed(failed.key, failed.failure);
        if (!outcome) return fail(at, outcome.failure());
        if (!(*at)->fell_back() || had_fallen_back) return;
        local_fallbacks_.fetch_add(1, std::memory_order_relaxed);
        args_.metrics.count_fallback("local_prefill", failed.failure);
      },
      // Acquires what the waker wrote, so that the look at cancelled() that follows sees it.
      [&](Wake&) { wake_posted_.exchange(false, std::memory_order_acq_rel); },
  };
  std::visit(visitor, event);
}

void ComputeThread::end_what_is_over() {
  const auto now = ServingClock::now();
  for (auto next = sequences_.begin(); next != sequences_.end();) {
    const auto at = next++;
    if ((*at)->job().cancelled()) {
      cancelled_.fetch_add(1, std::memory_order_relaxed);
      fail(at, {ErrorCode::kCancelled, "the client cancelled the request"});
    } else if ((*at)->ready_to_end(now)) {
      succeed(at);
    } else if (now >= (*at)->job().deadline && !(*at)->finished()) {
      fail(at, {ErrorCode::kDeadlineExceeded, "the request's deadline passed"});
    }
  }
}

// A job that no sequence holds.
void ComputeThread::refuse(DecodeJob& job, const Failure& failure) {
  job.pages.release();
  args_.admission.release();
  failed_.fetch_add(1, std::memory_order_relaxed);
  log_info("request_failed", {{"request", job.id},
                              {"user", job.request.user_tag},
                              {"code", to_string(failure.code)},
                              {"reason", failure.message}});
  job.fail(failure);
}

void ComputeThread::refuse_the_rest() {
  while (const auto event = inbox_.try_pop()) {
    if (const auto* admitted = std::get_if<Admitted>(&*event)) refuse(*admitted->job, kShuttingDown);
  }
}

// In both endings the pages are back and the transfer is over before the client hears of it.
void ComputeThread::fail(Sequences::iterator at, const Failure& failure) {
  const std::shared_ptr<DecodeJob> job = (*at)->share_job();
  erase(at);
  failed_.fetch_add(1, std::memory_order_relaxed);
  log_info("request_failed", {{"request", job->id},
                              {"user", job->request.user_tag},
                              {"code", to_string(failure.code)},
                              {"reason", failure.message}});
  job->fail(failure);
}

void ComputeThread::succeed(Sequences::iterator at) {
  const std::shared_ptr<DecodeJob> job = (*at)->share_job();
  CompletionEnd end = (*at)->take_end();
  erase(at);
  completed_.fetch_add(1, std::memory_order_relaxed);
  const double predicted_ms = end.account.forecast ? 1e3 * end.account.forecast->seconds() : 0;  // 0: not
  log_info("request_done", {{"request", job->id},
                            {"user", job->request.user_tag},
                            {"prompt_tokens", end.prompt_tokens},
                            {"completion_tokens", end.completion_tokens},
                            {"ttft_ms", end.account.times.total_ms},
                            {"orchestration_ms", end.account.times.orchestration_ms},
                            {"predicted_first_token_ms", predicted_ms},
                            {"measured_first_token_ms", 1e3 * end.account.first_token_seconds},
                            {"wire_bytes", end.account.wire_bytes},
                            {"cached_tokens", end.account.cached_tokens},
                            {"prefix_cached_tokens", end.account.prefix_cached_tokens},
                            {"preemptions", end.account.preemptions}});
  job->end(std::move(end));
}

void ComputeThread::erase(Sequences::iterator at) {
  if (batch_ != nullptr) batch_->leave(**at);
  for (QueuedStep& step : queued_) step.leave(**at);
  const bool was_suspended = (*at)->suspended();
  sequences_.erase(at);
  if (was_suspended) hold_back_others();
  sequence_count_.fetch_sub(1, std::memory_order_relaxed);
  args_.admission.release();
}

Sequence* ComputeThread::find(uint64_t request_id) {
  for (const auto& sequence : sequences_) {
    if (sequence->job().id == request_id) return sequence.get();
  }
  return nullptr;
}

ServingClock::time_point ComputeThread::next_deadline() const {
  auto deadline = ServingClock::time_point::max();
  for (const auto& sequence : sequences_) {
    deadline = std::min(deadline, sequence->finished() ? sequence->account_deadline() : sequence->job().deadline);
  }
  return deadline;
}

}  // namespace scd
