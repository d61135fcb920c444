// What a codec does to a consumer, without servers: both models prefill a prompt, a codec turns the producer's cache
// into a consumer's cache chunk by chunk, and the consumer continues natively over it. Eval and the calibrator share
// it; engine and codec code are the servers' own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/base/token.h"
#include "common/codec/codec.h"
#include "common/model/model.h"
#include "tools/scd/prompt_batch.h"

namespace scd {

struct CacheExperimentOptions {
  int64_t chunk_tokens = 128;  // a codec's block
  bool exact_layer0 = true;    // layer 0 depends on the token ids alone: the consumer computes it; codecs whose
                               // calibration says how many first layers it computes are not asked
  int64_t sinks = 16;          // first tokens the consumer computes itself; 0: none
  int64_t suffix = 32;         // at least this many last tokens run natively; 0 still leaves one
};

// The hand-over ends at the largest multiple of 16 <= tokens - suffix; 0 when the prompt is too short for one.
int64_t handover_tokens(int64_t prompt_tokens, int64_t suffix);

// What one rebuild sent and cost. Bytes are payload bytes; one payload is one unit of one chunk.
struct RebuildAccount {
  int64_t tokens = 0;  // handed over, sinks excluded: those the bytes are for
  int64_t payloads = 0;
  int64_t payload_bytes = 0;
  double encode_ms = 0;
  double decode_ms = 0;  // projection of Patch layers included
  double native_ms = 0;  // layers that the consumer runs over the prefix
  double bytes_per_token() const {
    return tokens > 0 ? static_cast<double>(payload_bytes) / static_cast<double>(tokens) : 0.0;
  }
};

// KL(truth || other) of each row's next-token distribution, nats; double inside. Same rows and vocabulary.
std::vector<double> kl_divergence(const Continuation& truth, const Continuation& other);
std::vector<double> kl_divergence(const Continuation& truth, kernels::ConstMatrix other);  // logits on the host

// KL(softmax(truth) || softmax(other)) of one row of logits, nats.
double kl_divergence(std::span<const float> truth, std::span<const float> other);

// One producer, one consumer, and prompts that share their hand-over. Not thread-safe. Holds caches of max_tokens
// positions of either model, and one for each prompt.
class CacheExperiment {
 public:
  // The models must outlive it and may be one and the same. Which shapes go together is for codecs to say.
  CacheExperiment(const Model& producer, const Model& consumer, int64_t max_tokens,
                  CacheExperimentOptions options = {});
  ~CacheExperiment();
  CacheExperiment(const CacheExperiment&) = delete;
  CacheExperiment& operator=(const CacheExperiment&) = delete;

  // Prefills both models over the hand-over that the prompts have in common; what it has in common with the last one is
  // kept. At most PromptBatch::kMostPrompts. `encoders`: those that rebuild() will be called with (what Patch layers
  // need is kept). Throws Error kOutOfRange for a prompt beyond max_tokens, kInvalidArgument for an empty one.
  void set_prompts(std::vector<std::vector<TokenId>> prompts, std::span<const Encoder* const> encoders);
  void set_prompt(std::span<const TokenId> prompt, std::span<const Encoder* const> encoders);

  int64_t max_tokens() const;  // of a prompt and its continuation
  int64_t prompt_tokens(size_t prompt = 0) const;
  int64_t handover() const;  // positions [0, handover) come from the cache under test

  // Choose the cache that the next runs stand on.
  void use_oracle();  // the consumer's own
  // The codec's, with the exact parts of the options. Throws Error with the decoder's failure.
  RebuildAccount rebuild(const Encoder& encoder, const Decoder& decoder, const RankCaps& caps);

  // The suffix [handover, prompt) and then `forced`, natively over the chosen cache: a distribution for every one of
  // these tokens. May be called again and again. Of one prompt, and of all in one batch.
  Continuation run(std::span<const TokenId> forced);
  // last: of each prompt only so many last ones, all forced ones and one more at least.
  std::vector<Continuation> run_all(std::span<const std::vector<TokenId>> forced, std::span<const int64_t> last = {});

  // Greedily up to max_tokens ids (PromptBatch::generate).
  std::vector<TokenId> generate(int32_t max_tokens, const std::function<bool(TokenId)>& ends = {});
  std::vector<std::vector<TokenId>> generate_all(int32_t max_tokens, const std::function<bool(TokenId)>& ends = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace scd
