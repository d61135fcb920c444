// One job on the compute thread: its prompt, then its generation, at last its account.
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
#include "common/tokenizer/tokenizer.h"
#include "decode_server/codec_policy.h"
#include "decode_server/config.h"
#include "decode_server/generate/generation.h"
#include "decode_server/job.h"
#include "decode_server/prefix_cache.h"
#include "decode_server/rebuild/coded_prompt.h"
#include "decode_server/rebuild/prompt_work.h"
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
  CodecPolicy& codecs;
};

// Used by the compute thread only.
class Sequence {
 public:
  // Starts the transfer, or the prefill where there is nothing to transfer.
  Sequence(const SequenceContext& context, std::shared_ptr<DecodeJob> job);
  // Frees the pages and ends the transfer.
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  DecodeJob& job() const { return *job_; }
  std::shared_ptr<DecodeJob> share_job() const { return job_; }

  // Transfer events; those of an earlier try are ignored.
  void transfer_accepted(TransferKey key, TransferPlan plan);
  void message_arrived(TransferKey key, ReceivedMessage message);
  void transfer_restarted(TransferKey key);
  void transfer_finished(TransferKey key);
  // Falls back to a local prefill where configuration allows, else the failure that ends the job.
  Result<Done> transfer_failed(const Failure& failure);
  bool fell_back() const { return !account_.fallback_reason.empty(); }

  // The most urgent piece of prompt work; kWait when none, or when the prompt is done.
  PromptStep next() const { return prompt_ == nullptr ? PromptStep::kWait : prompt_->next(); }
  bool prompt_pending() const { return prompt_ != nullptr; }
  // Does next(). Codes that cannot be used are reported to the transfer stage, which tries elsewhere.
  void run_prompt_step();

  // Generating, and not finished.
  bool decoding() const { return prompt_ == nullptr && !finished_; }
  // The token to run next and its position.
  SequenceChunk decode_chunk() const;
  void accept_logits(std::span<const float> logits);
  // The most probable id alone will do.
  std::optional<PlainSampling> plain_sampling() const { return generation_.plain_sampling(); }
  void accept_token(TokenId id);

  // Everything has been said but the end.
  bool finished() const { return finished_.has_value(); }
  // Finished and its account complete, or not worth waiting for any longer.
  bool ready_to_end(ServingClock::time_point now) const;
  ServingClock::time_point account_deadline() const { return account_deadline_; }
  CompletionEnd take_end();

 private:
  void start_coded(TransferWish wish);
  void start_local();
  void keep_pages();
  void enter(TransferKey key);
  void tell_prompt(const std::optional<CodecChoice>& codec);
  void clear_account();
  void first_token();
  void end_transfer_when_done();
  void step(Generation::Step step);
  void close_account();
  TransferCost transfer_cost() const;

  const SequenceContext context_;
  std::shared_ptr<DecodeJob> job_;  // shared as DecodeJob says
  std::unique_ptr<PromptWork> prompt_;
  CodedPrompt* coded_ = nullptr;  // prompt_ while it is one
  uint32_t generation_number_ = 0;
  bool transferring_ = false;  // the prefill server has not said that it is finished
  bool prompt_told_ = false;
  std::vector<PrefixCache::Run> origins_;  // of what was computed or rebuilt for this request
  bool origin_known_ = true;               // also of what came with the last transfer
  Generation generation_;
  std::vector<TokenId> tokens_;  // of the prompt, and sampled ones
  TransferAccount account_;
  int64_t coded_tokens_ = 0;  // that were sent
  ServingClock::duration rebuild_time_{0};
  ServingClock::time_point first_token_at_;
  ServingClock::time_point account_deadline_ = ServingClock::time_point::max();
  std::optional<Generation::Step> finished_;
};

// What to ask a prefill server for; nothing where no transfer is wanted, or so little of the prompt is neither held nor
// to be computed here anyway that none would pay.
std::optional<TransferWish> plan_transfer(const DecodeConfig& config, const CompletionRequest& request,
                                          int64_t held_tokens);

}  // namespace scd
