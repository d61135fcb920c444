// The compute thread: everything that multiplies matrices happens on it, in pieces no longer than a layer of a step,
// and between two of them it looks at what arrived. What rebuilding needs comes first, but no more of it than a step
// may hold while others wait for steps. A step gives each answer under way its next token and fills up with tokens of
// prompts (step_plan.h). Where pages run out, who came last is suspended (docs/life_of_a_request.md).
//
// While there is nothing but answers, a GPU has the next step before the tokens of this one are known here: it reads
// them where they were sampled. An answer that turns out to have ended is computed once more for nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <new>
#include <thread>
#include <variant>
#include <vector>

#include "common/model/decode_step.h"
#include "common/threads/bounded_queue.h"
#include "decode_server/batch_step.h"
#include "decode_server/metrics.h"
#include "decode_server/sequence.h"
#include "decode_server/stages.h"

namespace scd {

struct ComputeCounters {
  int32_t sequences = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;  // with an error status, cancelled ones included
  uint64_t cancelled = 0;
  uint64_t local_fallbacks = 0;
  uint64_t preemptions = 0;
  uint64_t answer_steps = 0;
  uint64_t answer_steps_ahead = 0;
};

Failure out_of_memory(const std::bad_alloc& error);

class ComputeThread : public ComputeStage {
 public:
  struct Args {
    const DecodeConfig& config;
    const Model& model;
    KvCache& cache;
    PrefixCache& prefixes;
    const Tokenizer& tokenizer;
    AdmissionStage& admission;
    PrefillForecast& forecast;  // learns how fast prompts are computed here
    DecodeMetrics& metrics;
  };
  explicit ComputeThread(const Args& args);
  ~ComputeThread() override;  // as stop()

  // Runs a forward pass, records steps on a GPU, then takes jobs until it is stopped. Throws RESOURCE_EXHAUSTED where
  // the cache is too small for that.
  void start(TransferStage& transfers);
  // Ends all jobs soon. Any thread.
  void request_stop() { inbox_.close(); }
  // Waits until it has: afterwards no other stage is called. Jobs that came too late, or to a thread that did not
  // start, are refused.
  void stop();

  void admit(std::shared_ptr<DecodeJob> job) override;
  void wake() override;
  void transfer_accepted(TransferKey key, TransferPlan plan) override;
  void message_arrived(TransferKey key, ReceivedMessage message) override;
  void transfer_restarted(TransferKey key) override;
  void transfer_declined(TransferKey key, LocalChoice choice) override;
  void transfer_finished(TransferKey key) override;
  void transfer_failed(TransferKey key, Failure failure) override;

  ComputeCounters counters() const;

 private:
  struct Admitted {
    std::shared_ptr<DecodeJob> job;
  };
  struct Accepted {
    TransferKey key;
    TransferPlan plan;
  };
  struct Arrived {
    TransferKey key;
    ReceivedMessage message;
  };
  struct Restarted {
    TransferKey key;
  };
  struct Declined {
    TransferKey key;
    LocalChoice choice;
  };
  struct Finished {
    TransferKey key;
  };
  struct Failed {
    TransferKey key;
    Failure failure;
  };
  struct Wake {};
  using Event = std::variant<Admitted, Accepted, Arrived, Restarted, Declined, Finished, Failed, Wake>;
  using Sequences = std::list<std::unique_ptr<Sequence>>;

  void post(Event event);
  void run(TransferStage& transfers);
  void warm_up();
  void record_steps();
  void compute_for_warmth(int64_t count);
  void handle(Event event, TransferStage& transfers);
  void end_what_is_over();
  void fail(Sequences::iterator at, const Failure& failure);
  void refuse(DecodeJob& job, const Failure& failure);
  void refuse_the_rest();
  void succeed(Sequences::iterator at);
  void erase(Sequences::iterator at);
  Sequence* find(uint64_t request_id);
  ServingClock::time_point next_deadline() const;

  // compute_steps.cpp
  bool work_once();
  int64_t prompt_budget(bool decoding) const;
  Sequence* most_urgent(bool by_layers) const;
  bool run_piece(Sequence& sequence, bool by_layers);
  bool begin_step();
  void decode_step(const std::vector<BatchStep::Member>& members);
  void queue_step(const std::vector<Sequence*>& answers, const NextTokens::Draws& draws, const kernels::Matrix& logits);
  void go_on();
  bool may_go_ahead();
  void queue_next_step();
  void take_tokens();
  void run_layer();
  // Until what is queued of the step's layers is done, which is the step's time and nobody else's.
  void wait_for_layer();
  void count_layer(ServingClock::time_point begin, ServingClock::time_point end);
  void drop_largest(const std::vector<BatchStep::Member>& members, const std::bad_alloc& error);
  // begin: of computing the logits, which are changed
  void deliver(const std::vector<BatchStep::Member>& members, const kernels::Matrix& logits,
               ServingClock::time_point begin);
  void end_step();
  void grow_pages();
  Sequence& last_with_pages();
  void suspend(Sequence& sequence);
  void resume_suspended();
  Sequence* first_suspended() const;
  void hold_back_others();
  void tell_backlog() const;
  void charge_waiters(const Sequence* worked_for, ServingClock::time_point begin, ServingClock::time_point end);

  const Args args_;
  const int64_t step_tokens_;
  DecodeStep step_;
  NextTokens next_tokens_;
  BoundedQueue<Event> inbox_;
  std::atomic<bool> wake_posted_{false};  // exchange acq_rel: at most one Wake is in the inbox
  KeptCodesBudget kept_codes_;
  Sequences sequences_;
  // Steps of answers on a GPU whose tokens are not taken yet: none, one, or two within go_on().
  struct QueuedStep {
    std::vector<Sequence*> answers;  // by row; null: it has ended
    // Of those: the step reads its adapter. Their pages are others' at once, whose keys and values are queued behind
    // it.
    std::vector<std::shared_ptr<const ServedModel>> models = {};  // shared as ServedModel says
    void leave(Sequence& sequence);
  };
  std::deque<QueuedStep> queued_;
  std::unique_ptr<BatchStep> batch_;        // the step that is running, where it computes prompts
  ServingClock::duration batch_time_{0};    // that it took so far
  double pieces_cost_ = 0;                  // since the last step, in whole passes of a token
  std::atomic<int32_t> sequence_count_{0};  // the counters are read by other threads, relaxed: they order nothing
  std::atomic<uint64_t> completed_{0};
  std::atomic<uint64_t> failed_{0};
  std::atomic<uint64_t> cancelled_{0};
  std::atomic<uint64_t> local_fallbacks_{0};
  std::atomic<uint64_t> preemptions_{0};
  std::atomic<uint64_t> answer_steps_{0};
  std::atomic<uint64_t> answer_steps_ahead_{0};
  std::jthread thread_;
};

}  // namespace scd
