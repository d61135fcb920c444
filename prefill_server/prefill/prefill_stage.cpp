#include "prefill_server/prefill/prefill_stage.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "common/model/forward.h"

#include "kernels/device.h"

namespace scd {
namespace {

// Layers of the producer that anything sent depends on: a residual stream needs what the layers before it leave.
int32_t layers_to_run(const PrefillJob& job) {
  const LayerPlan& plan = job.plan.layers;
  int32_t layers = 0;
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    const UnitSource source = job.encoder.source(plan, unit);
    layers = std::max(layers, plan.units[unit].residual ? source.first_layer : source.end());
  }
  return layers;
}

}  // namespace

PrefillStage::PrefillStage(Args args)
    : args_(std::move(args)), warm_(warmed_.get_future()), thread_([this](const std::stop_token& stop) {
        pthread_setname_np(pthread_self(), "scd-compute");
        run(stop);
      }) {}

PrefillStage::~PrefillStage() { stop(); }

void PrefillStage::stop() {
  thread_.request_stop();
  wake();
  if (thread_.joinable()) thread_.join();
}

void PrefillStage::submit(Job job) {
  {
    std::scoped_lock lock(mutex_);
    waiting_.push_back({.job = std::move(job), .arrival = ++arrivals_, .batches_before = batches_, .pages = {}});
    woken_ = true;
  }
  changed_.notify_one();
}

void PrefillStage::wake() {
  {
    std::scoped_lock lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

size_t PrefillStage::waiting() const {
  std::scoped_lock lock(mutex_);
  return waiting_.size();
}

size_t PrefillStage::computing() const { return computing_.load(std::memory_order_relaxed); }

void PrefillStage::run(const std::stop_token& stop) {
  if (args_.threads > 0) omp_set_num_threads(args_.threads);
  try {
    warm_up();
    warmed_.set_value();
  } catch (...) {
    warmed_.set_exception(std::current_exception());
    return;
  }
  while (!stop.stop_requested()) {
    begin_waiting();
    active_.remove_if([](const Work& work) { return work.job->ended(); });
    computing_.store(active_.size(), std::memory_order_relaxed);
    const auto work = next_runnable();
    if (work == active_.end()) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return woken_; });
      woken_ = false;
      continue;
    }
    try {
      run_batch(*work);
    } catch (const std::bad_alloc& error) {
      work->job->fail({ErrorCode::kResourceExhausted, std::string("memory of the prefill server: ") + error.what()});
      continue;
    }
    if (work->done_tokens >= work->job->plan.handover_tokens) active_.erase(work);
    count_batch();
  }
}

// The first pass pays for memory, primitives and threads, so that the first request does not.
void PrefillStage::warm_up() {
  const int64_t room = int64_t{args_.cache.pool().pages()} * args_.cache.pool().page_tokens();
  const int64_t tokens = std::min({args_.batch_tokens, room, int64_t{args_.model.config().max_positions}});
  PageTable pages = args_.cache.pool().make_table();
  if (const auto reserved = pages.reserve(tokens); !reserved) throw Error(reserved.failure());
  const std::vector<TokenId> ids(static_cast<size_t>(tokens), 0);
  const SequenceChunk chunk{&pages, 0, ids};
  ForwardPass pass(args_.model, args_.cache, std::span(&chunk, 1));
  while (pass.next_layer() < args_.model.config().layers) pass.run_layer();
}

PromptInLine PrefillStage::in_line(const Work& work) const {
  return {.precedence = {.priority = 0, .arrival = work.arrival},
          .tokens_left = work.job->plan.handover_tokens - work.done_tokens,
          .age_tokens = age_tokens(static_cast<int64_t>(batches_ - work.batches_before), args_.batch_tokens)};
}

void PrefillStage::count_batch() {
  std::scoped_lock lock(mutex_);
  ++batches_;
}

// Waiting jobs begin while there are places and pages; the first in line is not overtaken by those that would fit.
void PrefillStage::begin_waiting() {
  while (active_.size() < static_cast<size_t>(args_.max_computing)) {
    std::list<Work> first;
    {
      std::scoped_lock lock(mutex_);
      waiting_.remove_if([](const Work& work) { return work.job->ended(); });
      if (waiting_.empty()) return;
      const auto next = std::min_element(waiting_.begin(), waiting_.end(), [this](const Work& a, const Work& b) {
        return in_line(a).before(in_line(b));
      });
      first.splice(first.end(), waiting_, next);
    }
    Work& work = first.front();
    if (!args_.before(work.job)) continue;
    work.pages = args_.cache.pool().make_table();
    // Pages come back when another job ends; without another one, they all are here.
    if (!work.pages.reserve(work.job->plan.handover_tokens)) {
      std::scoped_lock lock(mutex_);
      waiting_.splice(waiting_.end(), first);
      return;
    }
    work.job->spans.add({PrefillPart::kQueue, work.job->request.received_at, PrefillClock::now()});
    active_.splice(active_.end(), first);
  }
}

std::list<PrefillStage::Work>::iterator PrefillStage::next_runnable() {
  auto first = active_.end();
  for (auto work = active_.begin(); work != active_.end(); ++work) {
    if (!has_room(*work->job)) continue;
    if (first == active_.end() || in_line(*work).before(in_line(*first))) first = work;
  }
  return first;
}

bool PrefillStage::has_room(PrefillJob& job) const {
  std::scoped_lock lock(job.outbox.mutex);
  return job.outbox.unsent_bytes <= args_.max_unsent_bytes;
}

void PrefillStage::run_batch(Work& work) {
  PrefillJob& job = *work.job;
  const int64_t first = work.done_tokens;
  const int64_t count = std::min(args_.batch_tokens, job.plan.handover_tokens - first);
  const SequenceChunk chunk{
      &work.pages, first,
      std::span(job.request.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count))};
  const int32_t layers = layers_to_run(job);
  args_.on_batch(work.job, {first, count});
  auto started = PrefillClock::now();
  ForwardPass pass(args_.model, args_.cache, std::span(&chunk, 1));
  for (int32_t layer = 0; layer <= layers; ++layer) {
    if (job.ended()) break;  // the consumer's wish is heard between layers
    if (job.encoder.needs_residual(layer))
      args_.on_residual(work.job, {layer, {first, count}, pass.hidden_state_on_device()});
    if (layer == layers) break;
    const bool keep = layer >= job.request.first_layer && job.encoder.needs_attention_input(layer);
    pass.keep_attention_input(keep);
    // Where nobody reads what the last layer passes on, its keys and values are all that is asked for.
    if (layer + 1 < layers || job.encoder.needs_residual(layers)) {
      pass.run_layer();
    } else {
      pass.run_keys_values_only();
    }
    kernels::synchronize(args_.model.device());  // the span of a layer is its computing, not its queueing
    const auto computed = PrefillClock::now();
    job.spans.add({PrefillPart::kPrefill, started, computed});
    args_.on_layer(work.job, {.layer = layer,
                              .tokens = {first, count},
                              .cache = args_.cache,
                              .page_ids = work.pages.page_ids(),
                              .attention_input = keep ? pass.attention_input() : kernels::ConstMatrix{}});
    started = PrefillClock::now();
  }
  work.done_tokens += count;
}

}  // namespace scd
