// What the compute thread does between two looks at its inbox.
#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include "common/base/check.h"
#include "common/log/log.h"
#include "decode_server/compute.h"
#include "kernels/device.h"
#include "kernels/sampling.h"

namespace scd {
namespace {

constexpr int64_t kFewestPromptTokens = 16;  // of a step, however many answers are under way

bool costs_nothing(CodedStep piece) { return piece == CodedStep::kPrefixComplete || piece == CodedStep::kFirstToken; }

// Those of answers are few beside them.
int64_t prompt_tokens(const std::vector<BatchStep::Member>& members) {
  int64_t tokens = 0;
  for (const BatchStep::Member& member : members) tokens += member.tokens;
  return tokens;
}

}  // namespace

bool ComputeThread::work_once() {
  if (!queued_.empty()) {
    tell_backlog();
    go_on();
    return true;
  }
  resume_suspended();
  tell_backlog();
  const bool decoding = std::ranges::any_of(sequences_, [](const auto& s) { return s->decoding(); });
  // Where answers wait for their next tokens, the last tokens of a prompt are computed together with those.
  const bool by_layers = !decoding;
  Sequence* urgent = most_urgent(by_layers);
  const CodedStep piece = urgent == nullptr ? CodedStep::kWait : urgent->next_piece(by_layers);
  const bool others_wait =
      batch_ != nullptr || std::ranges::any_of(sequences_, [](const auto& s) { return s->tokens_left() > 0; });
  const bool has_room = !others_wait || pieces_cost_ < static_cast<double>(prompt_budget(decoding));
  if (piece != CodedStep::kWait && (has_room || costs_nothing(piece))) {
    wait_for_layer();
    const auto begin = ServingClock::now();
    if (run_piece(*urgent, by_layers)) charge_waiters(urgent, begin, ServingClock::now());
    // Prompts age where there are only pieces, too.
    if (!others_wait && pieces_cost_ >= static_cast<double>(prompt_budget(decoding))) end_step();
    return true;
  }
  // Growing may have suspended all that waited for a step: then the piece has room the next time.
  if (batch_ == nullptr && !begin_step()) return piece != CodedStep::kWait;
  if (batch_ != nullptr) run_layer();
  return true;
}

// Tokens of prompts that a step may compute.
int64_t ComputeThread::prompt_budget(bool decoding) const {
  if (!decoding) return args_.config.limits.prefill_chunk_tokens;
  const auto answers = std::ranges::count_if(sequences_, [](const auto& s) { return s->decoding(); });
  return std::max<int64_t>(step_tokens_ - answers, kFewestPromptTokens);
}

Sequence* ComputeThread::most_urgent(bool by_layers) const {
  Sequence* best = nullptr;
  for (const auto& sequence : sequences_) {
    const CodedStep step = sequence->next_piece(by_layers);
    if (step == CodedStep::kWait) continue;
    const CodedStep best_step = best == nullptr ? CodedStep::kWait : best->next_piece(by_layers);
    if (step > best_step || (step == best_step && sequence->in_line().before(best->in_line()))) best = sequence.get();
  }
  return best;
}

// False where it has ended the sequence.
bool ComputeThread::run_piece(Sequence& sequence, bool by_layers) {
  try {
    pieces_cost_ += sequence.run_piece(by_layers);
    return true;
  } catch (const std::bad_alloc& error) {
    fail(std::ranges::find(sequences_, &sequence, &std::unique_ptr<Sequence>::get), out_of_memory(error));
    return false;
  }
}

// Chooses what the next step computes. A step of answers only is done at once.
bool ComputeThread::begin_step() {
  grow_pages();
  std::vector<BatchStep::Member> members;
  for (const auto& sequence : sequences_) {
    if (sequence->decoding()) members.push_back({.sequence = sequence.get(), .tokens = 1, .samples = true});
  }
  const bool decoding = !members.empty();
  std::vector<Sequence*> prompts;
  std::vector<PromptInLine> line;
  for (const auto& sequence : sequences_) {
    if (sequence->decoding() || sequence->tokens_left() == 0) continue;
    prompts.push_back(sequence.get());
    line.push_back(sequence->in_line());
  }
  const auto spent = static_cast<int64_t>(decoding ? pieces_cost_ : 0);
  const std::vector<int64_t> shares = share_out(line, std::max(prompt_budget(decoding) - spent, kFewestPromptTokens));
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (shares[i] == 0) continue;
    members.push_back({.sequence = prompts[i], .tokens = shares[i], .samples = shares[i] == prompts[i]->tokens_left()});
  }
  if (members.empty()) return false;
  try {
    if (std::ranges::all_of(members, [](const auto& member) { return member.sequence->decoding(); })) {
      decode_step(members);
    } else {
      batch_ = std::make_unique<BatchStep>(args_.model, args_.cache, members);
      batch_time_ = {};
    }
  } catch (const std::bad_alloc& error) {
    drop_largest(members, error);
  }
  return true;
}

// Recorded on a GPU, which samples, too, unless somebody wants to see logits.
void ComputeThread::decode_step(const std::vector<BatchStep::Member>& members) {
  const auto begin = ServingClock::now();
  std::vector<SequenceChunk> chunks;
  std::vector<Sequence*> answers;
  NextTokens::Draws draws;
  for (const BatchStep::Member& member : members) {
    chunks.push_back(member.sequence->chunk(1));
    answers.push_back(member.sequence);
    draws.push_back(member.sequence->sampler().draw());
  }
  const kernels::Matrix logits = step_.run(chunks);
  if (logits.device == kernels::Device::kGpu && std::ranges::all_of(draws, &std::optional<Draw>::has_value)) {
    queue_step(answers, draws, logits);
  } else {
    deliver(members, logits, begin);
    end_step();
    answer_steps_.fetch_add(1, std::memory_order_relaxed);
  }
  charge_waiters(nullptr, begin, ServingClock::now());
}

void ComputeThread::queue_step(const std::vector<Sequence*>& answers, const NextTokens::Draws& draws,
                               const kernels::Matrix& logits) {
  queued_.push_back({answers});
  try {
    next_tokens_.queue(draws, logits);
  } catch (const std::bad_alloc&) {
    queued_.pop_back();
    throw;
  }
  answer_steps_.fetch_add(1, std::memory_order_relaxed);
}

// Takes the tokens of the step under way, behind the next one where that may be queued before.
void ComputeThread::go_on() {
  const auto begin = ServingClock::now();
  if (may_go_ahead()) {
    try {
      queue_next_step();
    } catch (const std::bad_alloc&) {  // met again, and told, where that step is not ahead
      kernels::synchronize(args_.model.device());
    }
  }
  take_tokens();
  charge_waiters(nullptr, begin, ServingClock::now());
}

// The next step has the same answers, none of which waits for more than its token, and nobody has a prompt; takes the
// pages it needs.
bool ComputeThread::may_go_ahead() {
  const std::vector<Sequence*>& answers = queued_.front().answers;
  return answers.size() == sequences_.size() && std::ranges::all_of(answers, [](Sequence* answer) {
           return answer != nullptr && answer->decoding() && answer->grow_for_two();
         });
}

void ComputeThread::queue_next_step() {
  const std::vector<Sequence*>& answers = queued_.front().answers;
  std::vector<SequenceChunk> chunks;
  NextTokens::Draws draws;
  size_t changes = 0;
  for (Sequence* answer : answers) {
    chunks.push_back(answer->chunk_after_next());
    draws.push_back(answer->sampler().draw_after_next());
    changes += draws.back()->changes.size();
  }
  if (changes > kernels::kChangesAtOnce) return;  // sending them would wait for the step under way
  queue_step(answers, draws, step_.run(chunks, &next_tokens_.last_queued()));
  answer_steps_ahead_.fetch_add(1, std::memory_order_relaxed);
}

void ComputeThread::take_tokens() {
  const auto begin = ServingClock::now();
  const std::span<const TokenId> tokens = next_tokens_.take();
  const QueuedStep step = std::move(queued_.front());
  queued_.pop_front();
  for (size_t row = 0; row < step.answers.size(); ++row) {
    Sequence* answer = step.answers[row];
    if (answer == nullptr || !answer->decoding()) continue;  // it has ended meanwhile
    try {
      answer->computed(1);
      answer->accept_drawn(tokens[row], begin);
    } catch (const std::bad_alloc& error) {
      fail(std::ranges::find(sequences_, answer, &std::unique_ptr<Sequence>::get), out_of_memory(error));
    }
  }
  end_step();
}

void ComputeThread::QueuedStep::leave(Sequence& sequence) {
  for (Sequence*& answer : answers) {
    if (answer != &sequence) continue;
    answer = nullptr;
    models.push_back(sequence.job().model);
  }
}

void ComputeThread::run_layer() {
  const auto begin = ServingClock::now();
  try {
    batch_->run_layer();
    if (batch_->done()) kernels::synchronize(args_.model.device());
  } catch (const std::bad_alloc& error) {
    const std::unique_ptr<BatchStep> step = std::move(batch_);
    return drop_largest(step->members(), error);
  }
  const auto end = ServingClock::now();
  count_layer(begin, end);
  if (!batch_->done()) return;
  const std::unique_ptr<BatchStep> step = std::move(batch_);
  args_.forecast.computed_here(prompt_tokens(step->members()), batch_time_);
  try {
    deliver(step->members(), step->anyone_samples() ? step->logits() : kernels::Matrix{}, end);
  } catch (const std::bad_alloc& error) {
    return drop_largest(step->members(), error);
  }
  end_step();
}

void ComputeThread::wait_for_layer() {
  if (batch_ == nullptr || args_.model.device() == kernels::Device::kCpu) return;
  const auto begin = ServingClock::now();
  batch_->wait();
  count_layer(begin, ServingClock::now());
}

void ComputeThread::count_layer(ServingClock::time_point begin, ServingClock::time_point end) {
  batch_time_ += end - begin;
  for (const BatchStep::Member& member : batch_->members()) {
    if (member.sequence != nullptr) member.sequence->worked(begin, end);
  }
  charge_waiters(nullptr, begin, end);
}

// A step that finds no memory for its activations would find none the next time: the prompt that wants the most goes.
// The others' tokens are computed again.
void ComputeThread::drop_largest(const std::vector<BatchStep::Member>& members, const std::bad_alloc& error) {
  Sequence* largest = nullptr;
  int64_t most = 0;
  for (const BatchStep::Member& member : members) {
    if (member.sequence == nullptr || member.tokens <= most) continue;
    largest = member.sequence;
    most = member.tokens;
  }
  if (largest == nullptr) return;
  fail(std::ranges::find(sequences_, largest, &std::unique_ptr<Sequence>::get), out_of_memory(error));
}

void ComputeThread::deliver(const std::vector<BatchStep::Member>& members, const kernels::Matrix& logits,
                            ServingClock::time_point begin) {
  std::vector<Sequence*> sequences;  // by row of the logits; null: it has ended
  std::vector<Sampler*> samplers;
  for (const BatchStep::Member& member : members) {
    if (!member.samples) continue;
    sequences.push_back(member.sequence);
    samplers.push_back(member.sequence == nullptr ? nullptr : &member.sequence->sampler());
  }
  const std::span<const SampledToken> tokens = next_tokens_.of(samplers, logits);
  for (const BatchStep::Member& member : members) {
    if (member.sequence != nullptr) member.sequence->computed(member.tokens);
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i] != nullptr) sequences[i]->accept(tokens[i], begin);
  }
}

void ComputeThread::end_step() {
  pieces_cost_ = 0;
  for (const auto& sequence : sequences_) ++sequence->age_steps;
}

// Each answer needs a page now and then. Who came first gets it, if need be from who came last.
void ComputeThread::grow_pages() {
  std::vector<Sequence*> answers;
  for (const auto& sequence : sequences_) {
    if (sequence->decoding()) answers.push_back(sequence.get());
  }
  std::ranges::sort(answers,
                    [](const Sequence* a, const Sequence* b) { return a->precedence().before(b->precedence()); });
  for (Sequence* sequence : answers) {
    while (!sequence->suspended() && !sequence->grow()) suspend(last_with_pages());
  }
}

Sequence& ComputeThread::last_with_pages() {
  Sequence* last = nullptr;
  for (const auto& sequence : sequences_) {
    if (sequence->suspended() || sequence->finished()) continue;
    if (last == nullptr || last->precedence().before(sequence->precedence())) last = sequence.get();
  }
  SCD_CHECK(last != nullptr, "pages are held by sequences");
  return *last;
}

void ComputeThread::suspend(Sequence& sequence) {
  log_info("request_suspended", {{"request", sequence.job().id}, {"tokens", sequence.tokens()}});
  preemptions_.fetch_add(1, std::memory_order_relaxed);
  // Before its pages are free for others.
  sequence.mark_suspended();
  hold_back_others();
  sequence.give_up_pages();
}

void ComputeThread::resume_suspended() {
  bool changed = false;
  while (Sequence* first = first_suspended()) {
    const auto answers = std::ranges::count_if(sequences_, [](const auto& s) { return s->decoding(); });
    PagePool& pool = args_.cache.pool();
    if (pool.pages_to_spare() < pool.pages_for(first->tokens()) + answers) break;
    try {
      if (!first->resume()) break;
    } catch (const std::bad_alloc& error) {
      fail(std::ranges::find(sequences_, first, &std::unique_ptr<Sequence>::get), out_of_memory(error));
    }
    changed = true;
  }
  if (changed) hold_back_others();
}

Sequence* ComputeThread::first_suspended() const {
  Sequence* first = nullptr;
  for (const auto& sequence : sequences_) {
    if (!sequence->suspended()) continue;
    if (first == nullptr || sequence->precedence().before(first->precedence())) first = sequence.get();
  }
  return first;
}

void ComputeThread::hold_back_others() {
  const Sequence* first = first_suspended();
  args_.admission.hold_back(first == nullptr ? std::nullopt : std::optional(first->job().request.priority));
}

void ComputeThread::tell_backlog() const {
  int64_t tokens = 0;
  for (const auto& sequence : sequences_) {
    if (!sequence->decoding()) tokens += sequence->tokens_left();
  }
  args_.forecast.set_backlog(tokens);
}

// A prompt that waits while the thread works for others is queueing.
void ComputeThread::charge_waiters(const Sequence* worked_for, ServingClock::time_point begin,
                                   ServingClock::time_point end) {
  for (const auto& sequence : sequences_) {
    const bool works =
        sequence.get() == worked_for || (batch_ != nullptr && worked_for == nullptr && batch_->contains(*sequence));
    if (!works && sequence->prompt_pending()) sequence->job().timeline.add(TransferPart::kQueue, begin, end);
  }
}

}  // namespace scd
