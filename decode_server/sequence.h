// One job on the compute thread: its prompt, then its generation, at last its account.
//
// Tokens of prompt and answer stand in one row; the keys and values of the first of them are in the cache. Computing
// the next ones is all there is to a prompt that is computed here, to the tokens behind a prefix that was kept or
// rebuilt, and to generating; when none is left the logits of the last one give another token.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/codec/codec.h"
#include "common/kv/kv_cache.h"
#include "common/model/forward.h"
#include "common/model/model.h"
#include "common/schedule/step_plan.h"
#include "common/tokenizer/tokenizer.h"
#include "decode_server/config.h"
#include "decode_server/generate/generation.h"
#include "decode_server/generate/next_tokens.h"
#include "decode_server/job.h"
#include "decode_server/prefix_cache.h"
#include "decode_server/rebuild/coded_prompt.h"
#include "decode_server/rebuild/kept_codes.h"
#include "decode_server/served_model.h"
#include "decode_server/stages.h"

namespace scd {

// What all sequences of a server share; all outlive them.
struct SequenceContext {
  const DecodeConfig& config;
  const Model& model;
  KvCache& cache;
  PrefixCache& prefixes;
  const Tokenizer& tokenizer;
  TransferStage& transfers;
  PrefillForecast& forecast;
  KeptCodesBudget& kept_codes;
  NextTokens& next_tokens;
};

// Used by the compute thread only.
class Sequence {
 public:
  // Starts the transfer where there is something to transfer.
  Sequence(const SequenceContext& context, std::shared_ptr<DecodeJob> job);
  // Frees the pages and ends the transfer.
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  DecodeJob& job() const { return *job_; }
  std::shared_ptr<DecodeJob> share_job() const { return job_; }
  Precedence precedence() const { return {job_->request.priority, job_->id}; }

  // Transfer events; those of an earlier try are ignored.
  void transfer_accepted(TransferKey key, TransferPlan plan);
  void message_arrived(TransferKey key, ReceivedMessage message);
  void transfer_restarted(TransferKey key);
  // Computes the prompt here: that is sooner.
  void transfer_declined(TransferKey key, LocalChoice choice);
  void transfer_finished(TransferKey key);
  // Goes on without a transfer where configuration allows, else the failure that ends the job.
  Result<Done> transfer_failed(TransferKey key, const Failure& failure);
  bool fell_back() const { return !account_.fallback_reason.empty(); }

  // The prompt's codes: the most urgent piece of work on them; kWait when none.
  CodedStep next_piece(bool by_layers) const { return coded_ == nullptr ? CodedStep::kWait : coded_->next(by_layers); }
  // Does it; returns what it cost, in tokens' whole passes. Codes that cannot be used are reported to the transfer
  // stage, which tries elsewhere.
  double run_piece(bool by_layers);

  // Tokens whose keys and values this sequence is ready to compute.
  int64_t tokens_left() const;
  // The next `count` of them.
  SequenceChunk chunk(int64_t count) const;
  // Where there is one: the token that its step will give, which is not known yet.
  SequenceChunk chunk_after_next() const;
  // They are in the cache.
  void computed(int64_t count) { computed_ += count; }
  // A step they are part of was worked on.
  void worked(ServingClock::time_point begin, ServingClock::time_point end);
  // After all of them: the next token, which its sampler gave.
  Sampler& sampler() { return generation_.sampler(); }
  void accept(const SampledToken& token, ServingClock::time_point begin);
  // The same where it was drawn for the sampler.
  void accept_drawn(TokenId token, ServingClock::time_point begin) { accept(sampler().drawn(token), begin); }

  // No prompt is left to compute or to wait for: each step gives a token.
  bool decoding() const { return generating_ && !finished_ && !suspended_; }
  // Waits for its first token, or for its next one after it was suspended.
  bool prompt_pending() const { return !generating_ && !finished_; }
  PromptInLine in_line() const;
  int64_t age_steps = 0;

  // The pages reach so far that the next token can be computed. RESOURCE_EXHAUSTED where there are too few.
  Result<Done> grow() { return job_->pages.reserve(tokens()); }
  // So far that the one after it can be computed, too; false also where there will be none, or what its logits give
  // depends on the next token.
  bool grow_for_two() {
    return !generation_.next_is_last() && generation_.sampler().draw_after_next() && job_->pages.reserve(tokens() + 1);
  }
  // Nothing is computed for it until resume(), which has its pages filled again.
  void mark_suspended();
  void give_up_pages();
  bool suspended() const { return suspended_; }
  // RESOURCE_EXHAUSTED, and no change, where there are too few pages.
  Result<Done> resume();
  int64_t tokens() const { return std::ssize(tokens_); }

  // Everything has been said but the end.
  bool finished() const { return finished_.has_value(); }
  // Finished and its account complete, or not worth waiting for any longer.
  bool ready_to_end(ServingClock::time_point now) const;
  ServingClock::time_point account_deadline() const { return account_deadline_; }
  CompletionEnd take_end();

 private:
  void begin_prompt();
  void start_coded(TransferWish wish);
  void start_local();
  void enter(TransferKey key);
  void account_for(const TransferPlan& plan);
  void begin_rebuild(TransferPlan plan);
  void tell_prompt(const std::optional<CodecChoice>& codec);
  void clear_account();
  void end_coded();
  void end_transfer_when_done();
  void keep_pages();
  bool first_token_given() const { return first_token_at_.has_value(); }
  void step(Generation::Step step, ServingClock::time_point begin);
  void close_account();
  TransferCost transfer_cost() const;

  const SequenceContext context_;
  std::shared_ptr<DecodeJob> job_;      // shared as DecodeJob says
  std::vector<TokenId> tokens_;         // of the prompt, and sampled ones
  int64_t computed_ = 0;                // of them: their keys and values are in the cache
  std::unique_ptr<CodedPrompt> coded_;  // while codes are rebuilt
  KeptCodes kept_codes_;
  bool generating_ = false;
  bool suspended_ = false;
  uint32_t suspensions_ = 0;
  uint32_t generation_number_ = 0;
  uint32_t codes_generation_ = 0;  // whose messages gave the first token
  bool transferring_ = false;      // the prefill server has not said that it is finished
  bool asked_ = false;             // a prefill server, for what coded_ waits for
  bool stays_here_ = false;        // no prefill server is asked (again)
  bool prompt_told_ = false;
  TransferPart chunk_part_ = TransferPart::kPrefill;  // what computing the prompt's next tokens counts as
  std::vector<PrefixCache::Run> origins_;             // of what was computed or rebuilt for this request
  bool origin_known_ = true;                          // also of what came with the last transfer
  Generation generation_;
  TransferAccount account_;
  int64_t coded_tokens_ = 0;  // that were sent
  ServingClock::duration rebuild_time_{0};
  std::optional<ServingClock::time_point> first_token_at_;
  ServingClock::time_point account_deadline_ = ServingClock::time_point::max();
  std::optional<Generation::Step> finished_;
};

// What to ask a prefill server for; nothing where no transfer is wanted, or so little of the prompt is neither held nor
// to be computed here anyway that none would pay.
std::optional<TransferWish> plan_transfer(const DecodeConfig& config, const CompletionRequest& request,
                                          int64_t held_tokens);

}  // namespace scd
