#include "prefill_server/prefill/prefill_stage.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <new>
#include <string>
#include <utility>
#include <vector>

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

bool PrefillStage::shows_input(const Part& part, int32_t layer) {
  const PrefillJob& job = *part.work->job;
  return layer < part.layers && layer >= job.request.first_layer && job.encoder.needs_attention_input(layer);
}

kernels::ConstMatrix PrefillStage::rows_of(kernels::ConstMatrix all, const Part& part) {
  all.data = all.row<float>(part.first_row);
  all.rows = part.tokens.count;
  return all;
}

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
    waiting_.push_back({.job = std::move(job), .arrival = ++arrivals_, .steps_before = steps_.steps, .pages = {}});
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

StepCounters PrefillStage::steps() const {
  std::scoped_lock lock(mutex_);
  return steps_;
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
    active_.remove_if([](const Work& work) { return work.job->ended(); });  // first: their places and pages are free
    begin_waiting();
    computing_.store(active_.size(), std::memory_order_relaxed);
    const Step step = next_step();
    if (step.parts.empty()) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return woken_; });
      woken_ = false;
      continue;
    }
    run_or_fail(step);
    active_.remove_if([](const Work& work) { return work.done_tokens >= work.job->plan.handover_tokens; });
  }
}

void PrefillStage::run_or_fail(const Step& step) {
  const auto started = PrefillClock::now();
  try {
    run_step(step.parts);
    args_.spans.settle();
    args_.on_step_end();
  } catch (const std::bad_alloc& error) {
    for (const Part& part : step.parts) {
      part.work->job->fail(
          {ErrorCode::kResourceExhausted, std::string("memory of the prefill server: ") + error.what()});
    }
    args_.spans.settle();
    args_.on_step_end();
    return;
  }
  const auto ended = PrefillClock::now();
  for (const Work* work : step.left_out) work->job->spans.add({PrefillPart::kQueue, started, ended});
  count_step(step.parts);
}

// The first pass pays for memory, primitives and threads, so that the first request does not.
void PrefillStage::warm_up() {
  const int64_t room = int64_t{args_.cache.pool().pages()} * args_.cache.pool().page_tokens();
  const int64_t tokens = std::min({args_.step_tokens, room, int64_t{args_.model.config().max_positions}});
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
          .age_tokens = age_tokens(static_cast<int64_t>(steps_.steps - work.steps_before), args_.step_tokens)};
}

void PrefillStage::count_step(std::span<const Part> parts) {
  std::scoped_lock lock(mutex_);
  ++steps_.steps;
  steps_.prompts += parts.size();
  for (const Part& part : parts) steps_.tokens += static_cast<uint64_t>(part.tokens.count);
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

PrefillStage::Step PrefillStage::next_step() {
  std::vector<Work*> runnable;
  std::vector<PromptInLine> line;
  for (Work& work : active_) {
    if (!has_room(*work.job)) continue;
    runnable.push_back(&work);
    line.push_back(in_line(work));
  }
  const std::vector<int64_t> shares = share_out(line, args_.step_tokens, args_.chunk_tokens);
  Step step;
  int64_t rows = 0;
  for (size_t i = 0; i < runnable.size(); ++i) {
    Work& work = *runnable[i];
    if (shares[i] == 0) {
      step.left_out.push_back(&work);
      continue;
    }
    step.parts.push_back({&work, {work.done_tokens, shares[i]}, rows, layers_to_run(*work.job)});
    rows += shares[i];
  }
  return step;
}

bool PrefillStage::has_room(PrefillJob& job) const {
  std::scoped_lock lock(job.outbox.mutex);
  return job.outbox.unsent_bytes <= args_.max_unsent_bytes;
}

void PrefillStage::run_step(std::span<const Part> parts) {
  std::vector<SequenceChunk> chunks;
  std::vector<StepPart> shown;
  int32_t layers = 0;
  for (const Part& part : parts) {
    const auto& tokens = part.work->job->request.tokens;
    chunks.push_back(
        {&part.work->pages, part.tokens.first,
         std::span(tokens).subspan(static_cast<size_t>(part.tokens.first), static_cast<size_t>(part.tokens.count))});
    shown.push_back({part.work->job, part.tokens});
    layers = std::max(layers, part.layers);
  }
  args_.on_step(shown);
  ForwardPass pass(args_.model, args_.cache, chunks);
  for (int32_t layer = 0; layer <= layers; ++layer) {
    // The consumers' wish is heard between layers.
    if (std::ranges::all_of(parts, [](const Part& part) { return part.work->job->ended(); })) break;
    for (const Part& part : parts) show_residual(part, pass, layer);
    if (layer == layers) break;
    run_layer(parts, pass, layer, layers);
    for (const Part& part : parts) show_layer(part, pass, layer);
  }
  for (const Part& part : parts) part.work->done_tokens += part.tokens.count;
}

void PrefillStage::run_layer(std::span<const Part> parts, ForwardPass& pass, int32_t layer, int32_t layers) {
  args_.spans.begin_layer();
  args_.spans.begin(args_.model.device());
  pass.keep_attention_input(std::ranges::any_of(parts, [layer](const Part& part) { return shows_input(part, layer); }));
  // Where nobody reads what the last layer passes on, its keys and values are all that is asked for.
  const bool passed_on = layer + 1 < layers || std::ranges::any_of(parts, [layers](const Part& part) {
                           return part.layers == layers && part.work->job->encoder.needs_residual(layers);
                         });
  if (passed_on) {
    pass.run_layer();
  } else {
    pass.run_keys_values_only();
  }
  const int64_t rows = parts.back().first_row + parts.back().tokens.count;
  std::vector<QueuedSpans::Share> shares;
  for (const Part& part : parts) {
    if (layer >= part.layers) continue;
    shares.push_back({part.work->job, static_cast<double>(part.tokens.count) / static_cast<double>(rows)});
  }
  args_.spans.end(PrefillPart::kPrefill, std::move(shares));
}

void PrefillStage::show_residual(const Part& part, const ForwardPass& pass, int32_t layer) {
  const Job& job = part.work->job;
  if (job->ended() || layer > part.layers || !job->encoder.needs_residual(layer)) return;
  args_.on_residual(job, {layer, part.tokens, rows_of(pass.hidden_state_on_device(), part)});
}

void PrefillStage::show_layer(const Part& part, const ForwardPass& pass, int32_t layer) {
  const Job& job = part.work->job;
  if (job->ended() || layer >= part.layers) return;
  args_.on_layer(job, {.layer = layer,
                       .tokens = part.tokens,
                       .cache = args_.cache,
                       .page_ids = part.work->pages.page_ids(),
                       .attention_input =
                           shows_input(part, layer) ? rows_of(pass.attention_input(), part) : kernels::ConstMatrix{}});
}

}  // namespace scd
