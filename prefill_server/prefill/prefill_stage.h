// The compute thread: runs prompts through the producer, step by step and layer by layer, and shows every layer to the
// encode stage before the next one runs; a GPU has work for a layer more than is finished. A step computes tokens of as
// many prompts as its budget reaches, those with the least left first, after each step anew; prompts grow shorter with
// age (common/schedule/step_plan.h). The only thread that calls the model (its kernels run on one OpenMP pool).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "common/kv/kv_cache.h"
#include "common/model/forward.h"
#include "common/model/model.h"
#include "common/schedule/step_plan.h"
#include "prefill_server/computed_layer.h"
#include "prefill_server/job.h"
#include "prefill_server/queued_spans.h"

namespace scd {

// What was computed so far.
struct StepCounters {
  uint64_t steps = 0;
  uint64_t prompts = 0;  // over the steps; more than steps where prompts were computed together
  uint64_t tokens = 0;
};

class PrefillStage {
 public:
  using Job = std::shared_ptr<PrefillJob>;  // shared as PrefillJob says

  struct Args {
    const Model& model;
    KvCache& cache;
    QueuedSpans& spans;          // of the thread's jobs
    int64_t step_tokens = 256;   // a multiple of chunk_tokens
    int64_t chunk_tokens = 128;  // the codec's
    int32_t max_computing = 4;
    uint64_t max_unsent_bytes = 0;
    int32_t threads = 0;  // of OpenMP; 0: its default
    // On the compute thread. before: whether anything is left to compute.
    std::function<bool(const Job&)> before;
    std::function<void(std::span<const StepPart>)> on_step;  // begins
    std::function<void()> on_step_end;
    std::function<void(const Job&, const ResidualStream&)> on_residual;  // of layers whose residual the encoder needs
    std::function<void(const Job&, const ComputedLayer&)> on_layer;
  };

  // Runs a warm-up pass at once; wait for it with warm().
  explicit PrefillStage(Args args);
  ~PrefillStage();  // jobs that are not done are dropped
  PrefillStage(const PrefillStage&) = delete;
  PrefillStage& operator=(const PrefillStage&) = delete;

  void warm() { warm_.get(); }  // throws what the warm-up threw; once
  void submit(Job job);
  // The compute thread ends after its step; what is submitted later is never computed. Idempotent; from one thread.
  void stop();
  // A job ended, or has room to send again: look at once.
  void wake();

  size_t waiting() const;    // not yet begun
  size_t computing() const;  // begun
  StepCounters steps() const;

 private:
  struct Work {
    Job job;
    uint64_t arrival = 0;
    uint64_t steps_before = 0;  // it came
    PageTable pages;
    int64_t done_tokens = 0;
  };

  void run(const std::stop_token& stop);
  void warm_up();
  void begin_waiting();
  // A prompt's share of a step; its rows in the pass begin at first_row.
  struct Part {
    Work* work = nullptr;
    TokenRange tokens;
    int64_t first_row = 0;
    int32_t layers = 0;
  };

  struct Step {
    std::vector<Part> parts;
    std::vector<Work*> left_out;  // could be computed as well
  };

  static bool shows_input(const Part& part, int32_t layer);
  static kernels::ConstMatrix rows_of(kernels::ConstMatrix all, const Part& part);
  PromptInLine in_line(const Work& work) const;
  Step next_step();
  void run_or_fail(const Step& step);
  void run_step(std::span<const Part> parts);
  void run_layer(std::span<const Part> parts, ForwardPass& pass, int32_t layer, int32_t layers);
  void show_residual(const Part& part, const ForwardPass& pass, int32_t layer);
  void show_layer(const Part& part, const ForwardPass& pass, int32_t layer);
  void count_step(std::span<const Part> parts);
  bool has_room(PrefillJob& job) const;

  Args args_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Work> waiting_;
  uint64_t arrivals_ = 0;
  StepCounters steps_;  // written by the thread alone
  bool woken_ = false;
  std::atomic<size_t> computing_{0};

  std::list<Work> active_;  // the thread's own
  std::promise<void> warmed_;
  std::future<void> warm_;
  std::jthread thread_;
};

}  // namespace scd
