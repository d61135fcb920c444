#include "prefill_server/pipeline.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "common/codec/registry.h"
#include "common/log/log.h"
#include "kernels/linear.h"

namespace scd {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

double ms(PrefillClock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

int64_t whole_chunks(int64_t tokens, int64_t chunk_tokens) {
  return std::max(chunk_tokens, tokens - tokens % chunk_tokens);
}

}  // namespace

Pipeline::Pipeline(Args args)
    : args_(args),
      chunk_tokens_(args.config.codec.chunk_tokens),
      ledger_(static_cast<size_t>(args.config.limits.max_requests)),
      cache_(static_cast<uint64_t>(args.config.code_cache.memory_mib) * kMiB, chunk_tokens_, args.code_store),
      shipper_({.transport = args.transport,
                .metrics = args.metrics,
                .max_credit_messages = static_cast<uint32_t>(args.config.limits.max_credit_messages),
                .max_unsent_bytes = static_cast<uint64_t>(args.config.limits.max_unsent_mib) * kMiB,
                .on_room = [this] { prefill_->wake(); }}),
      encode_(cache_, queued_spans_,
              [this](const EncodeStage::Job& job, CodeUnit unit) { shipper_.add(job, {std::move(unit)}); }) {
  prefill_ = std::make_unique<PrefillStage>(PrefillStage::Args{
      .model = args.model,
      .cache = args.kv_cache,
      .spans = queued_spans_,
      .step_tokens = whole_chunks(args.config.limits.batch_tokens, chunk_tokens_),
      .chunk_tokens = chunk_tokens_,
      .max_computing = args.config.limits.max_computing,
      .max_unsent_bytes = static_cast<uint64_t>(args.config.limits.max_unsent_mib) * kMiB,
      .threads = args.config.threads,
      .before = [this](const PrefillStage::Job& job) { return prepare(job); },
      .on_step = [this](std::span<const StepPart> parts) { encode_.begin_step(parts); },
      .on_step_end = [this] { encode_.end_step(); },
      .on_residual = [this](const PrefillStage::Job& job,
                            const ResidualStream& residual) { encode_.keep_residual(job, residual); },
      .on_layer = [this](const PrefillStage::Job& job, const ComputedLayer& layer) { encode_.encode(job, layer); }});
}

Pipeline::~Pipeline() { end_all({ErrorCode::kUnavailable, "the prefill server is shutting down"}); }

std::shared_ptr<PrefillJob> Pipeline::begin(PrefillRequest request, std::shared_ptr<PrefillListener> listener) {
  const Encoder* encoder = args_.producer.encoder(request.codec.id);
  SCD_CHECK(encoder != nullptr, "the request stage refuses codecs that are not offered");
  if (const auto room = check_room(request); !room) {
    ledger_.count(room.failure());
    listener->failed(room.failure());
    return nullptr;
  }
  auto layers = encoder->plan(request.first_layer);
  SCD_CHECK(layers.ok(), "the request stage refuses first layers that the encoder does not serve");
  PrefixNames names = names_of(request, *encoder);
  // Those that will be refused wait for no store.
  const bool may_fetch = ledger_.live() < ledger_.capacity();
  const CodeCache::Found stored =
      may_fetch ? cache_.find_or_fetch(names, request.skip_tokens, {layers.value(), request.slot_bytes})
                : cache_.find(names, request.skip_tokens);
  HandoverPlan plan = plan_handover(
      request, {.cached_tokens = stored.end, .max_uncached_tail = args_.config.code_cache.max_uncached_tail_tokens},
      chunk_tokens_, std::move(layers).value());
  auto job = std::make_shared<PrefillJob>(PrefillJob::Args{
      .request = std::move(request),
      .plan = std::move(plan),
      .names = std::move(names),
      .encoder = *encoder,
      .listener = std::move(listener),
      .on_end = [this](PrefillJob& which, const std::optional<Failure>& failure) { ended(which, failure); }});
  if (const auto opened = ledger_.open(job); !opened) {
    job->fail(opened.failure());
    return nullptr;
  }
  job->listener().accepted(job->plan, encoder->id());
  if (job->plan.messages() == 0) {
    job->finish(0, {});
    return job;
  }
  shipper_.open(job);
  send_stored(job, stored.chunks);
  if (job->plan.cached_tokens < job->plan.handover_tokens) prefill_->submit(job);
  return job;
}

Result<Done> Pipeline::check_room(const PrefillRequest& request) const {
  if (draining_.load(std::memory_order_acquire)) {
    return Failure{ErrorCode::kUnavailable, "the prefill server is shutting down; use another one"};
  }
  const int64_t held = int64_t{args_.kv_cache.pool().pages()} * args_.kv_cache.pool().page_tokens();
  if (request.handover_tokens > held) {
    return Failure{ErrorCode::kResourceExhausted,
                   std::to_string(request.handover_tokens) + " tokens do not fit the KV cache of " +
                       std::to_string(held) + "; raise " + args_.kv_cache.sized_by() + " of the prefill server"};
  }
  return Done{};
}

PrefixNames Pipeline::names_of(const PrefillRequest& request, const Encoder& encoder) const {
  return {{.cache_salt = request.cache_salt,
           .producer = args_.producer.fingerprint.weights,
           .computed = args_.producer.precision + " " + kernels::linear_backend(args_.model.device()),
           .encoder_id = encoder.id(),
           .codec = request.codec,
           .first_layer = request.first_layer,
           .skip_tokens = request.skip_tokens},
          request.tokens};
}

// Stored chunks that the plan asks for and that were not sent yet: residual streams first, for the consumer has the
// most to compute from them, then unit by unit, so that it can finish its lowest layers first.
void Pipeline::send_stored(const std::shared_ptr<PrefillJob>& job, const std::vector<CodeCache::Chunk>& chunks) {
  std::vector<CodeCache::Chunk> wanted;
  const int64_t sent_before = job->stored_tokens;
  for (const CodeCache::Chunk& chunk : chunks) {
    const auto& planned = job->plan.chunks;
    const bool is_planned = std::find(planned.begin(), planned.end(), chunk->tokens) != planned.end();
    if (is_planned && chunk->tokens.first >= sent_before) wanted.push_back(chunk);
    const bool is_covered = is_planned || chunk->tokens.end() <= job->request.held_tokens;
    if (is_covered) job->stored_tokens = std::max(job->stored_tokens, chunk->tokens.end());
  }
  std::vector<CodeUnit> units;
  const std::vector<CodedUnit>& planned_units = job->plan.layers.units;
  for (const bool residual : {true, false}) {
    for (size_t unit = 0; unit < planned_units.size(); ++unit) {
      if (planned_units[unit].residual != residual) continue;
      for (const CodeCache::Chunk& chunk : wanted) units.push_back(chunk->units[unit]);
    }
  }
  if (!units.empty()) shipper_.add(job, std::move(units));
}

// Another job may have computed the same prompt while this one waited.
bool Pipeline::prepare(const std::shared_ptr<PrefillJob>& job) {
  const CodeCache::Found stored = cache_.find(job->names, job->request.skip_tokens);
  send_stored(job, stored.chunks);
  return job->stored_tokens < job->plan.handover_tokens;
}

void Pipeline::grant(const std::shared_ptr<PrefillJob>& job, uint32_t messages) { shipper_.grant(job, messages); }

void Pipeline::acknowledge(const std::shared_ptr<PrefillJob>& job, uint32_t sequence) {
  if (const auto done = shipper_.acknowledge(job, sequence); !done) job->fail(done.failure());
}

void Pipeline::ended(PrefillJob& job, const std::optional<Failure>& failure) {
  // A second start of a request that is being served goes, and what it names stays.
  if (failure && failure->code != ErrorCode::kAlreadyExists) shipper_.abandon(job);
  ledger_.count(failure);
  if (failure) {
    // A consumer that changes its mind is nothing to warn of.
    const LogLevel level = failure->code == ErrorCode::kCancelled ? LogLevel::kInfo : LogLevel::kWarning;
    log_event(level, "prefill_ended",
              {{"request", job.request.id},
               {"generation", job.request.generation},
               {"code", to_string(failure->code)},
               {"reason", failure->message}});
  } else {
    args_.metrics.count_finished(job);
    log_info("prefill_done", {{"request", job.request.id},
                              {"generation", job.request.generation},
                              {"codec", to_string(job.request.codec.id)},
                              {"handover_tokens", job.plan.handover_tokens},
                              {"cached_tokens", job.plan.cached_tokens},
                              {"messages", job.plan.messages()},
                              {"prefill_ms", ms(job.spans.total(PrefillPart::kPrefill))},
                              {"encode_ms", ms(job.spans.total(PrefillPart::kEncode))},
                              {"ms", ms(PrefillClock::now() - job.request.received_at)}});
  }
  ledger_.close(job);
  if (prefill_ != nullptr) prefill_->wake();
}

PrefillLoad Pipeline::load() const {
  return {.live_requests = ledger_.live(),
          .queued_tokens = ledger_.queued_tokens(),
          .capacity = ledger_.capacity(),
          .code_cache_bytes = cache_.counters().bytes,
          .draining = draining_.load(std::memory_order_acquire)};
}

size_t Pipeline::drain(PrefillClock::time_point deadline) {
  draining_.store(true, std::memory_order_release);
  if (ledger_.wait_idle(deadline)) return 0;
  return end_all({ErrorCode::kUnavailable, "the prefill server is shutting down"});
}

size_t Pipeline::end_all(const Failure& failure) {
  draining_.store(true, std::memory_order_release);
  return ledger_.fail_all(failure);
}

}  // namespace scd
