// What a client asks for and what it gets, free of protobuf: the words all stages share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/token.h"
#include "common/codec/codec.h"
#include "decode_server/prefill_forecast.h"
#include "decode_server/transfer_account.h"
#include "kernels/sampling.h"

namespace scd {

struct SamplingRequest {
  kernels::SamplingOptions options;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  std::vector<std::pair<TokenId, float>> logit_bias;
  uint64_t seed = 0;
  int32_t min_tokens = 0;
  int32_t logprobs = -1;  // -1: none; n: of the token and of the n most probable ones
};

struct StopRequest {
  int32_t max_tokens = 0;
  std::vector<std::string> strings;
  std::vector<TokenId> ids;
  bool ignore_end_of_sequence = false;
};

// How the prompt's state is to be had.
enum class TransferMode : uint8_t {
  kCodec,   // codes of the codec that request or configuration names
  kAuto,    // the server's choice: codes of the artifact, or the producer's bits
  kExact,   // bit-identical to the consumer's own prefill, or no transfer
  kOracle,  // the consumer prefills; nothing is transferred
};

// A checked request: every stage may rely on its ranges.
struct CompletionRequest {
  std::vector<TokenId> prompt;  // not empty; with max_tokens within the context
  SamplingRequest sampling;
  StopRequest stop;
  TransferMode mode = TransferMode::kCodec;
  CodecChoice codec;                      // with kCodec; with kAuto the artifact's, raw without one
  std::optional<int32_t> exact_layers{};  // that the consumer computes, where the codec's calibration decided that
  bool level_open = false;                // no level was named: it follows CodecPolicy
  bool form_open = false;                 // neither was a form
  bool predicts = false;                  // the codec predicts from their residual stream
  bool reads_prefix_cache = true;
  int32_t priority = 0;  // higher is served first
  std::string cache_salt;
  std::string user_tag;

  // Nothing calibrated may stand in for the prompt's state: where the two models differ the consumer computes it.
  bool needs_one_model() const;
};

struct TokenLogprob {
  TokenId id = 0;
  std::string text;
  float logprob = 0.0f;
};

struct SampledToken {
  TokenId id = 0;
  float logprob = 0.0f;                                    // with logprobs only
  std::vector<kernels::TokenProbability> most_probable{};  // with logprobs only
};

struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> most_probable;
};

struct PromptInfo {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;         // whose state was here, or whose codes the prefill server already had
  int64_t prefix_cached_tokens = 0;  // whose state was here
  std::optional<CodecChoice> codec;  // nothing: the consumer prefills
};

struct CompletionDelta {
  std::string text;
  std::vector<TokenId> ids;
  std::vector<PositionLogprobs> logprobs;  // one for each id, where asked for
};

enum class FinishReason : uint8_t { kStop, kLength };

// What the hand-over of one prompt cost. Spans and times start at the request's arrival and end with its first token.
struct TransferAccount {
  std::optional<CodecChoice> codec;  // of what was used in the end; nothing: the consumer prefilled
  int64_t wire_bytes = 0;            // payloads and message headers
  int64_t wire_messages = 0;
  double ratio_to_bf16 = 0;          // BF16 bytes of the tokens before the hand-over / wire_bytes; 0 without a transfer
  int64_t cached_tokens = 0;         // whose codes the prefill server already had
  int64_t prefix_cached_tokens = 0;  // whose keys and values were here
  int64_t handover_tokens = 0;
  PartTimes times;
  ServingClock::time_point arrival;
  std::vector<TransferSpan> timeline;  // sorted by begin
  std::string fallback_reason;         // empty: none
  std::string prefill_endpoint;        // empty: none
  int64_t preemptions = 0;             // pages were given up and filled again, so often
  std::string codec_reason;            // why the server chose this codec; empty: it was named
  // Of encoding, wire and rebuilding, overlaps counted twice.
  std::optional<double> predicted_seconds;  // when the codec was chosen, where enough had been measured
  double measured_seconds = 0;
  // Where a hand-over and computing the prompt here were compared, and what came of it.
  std::optional<FirstTokenForecast> forecast{};
  double first_token_seconds = 0;
};

struct CompletionEnd {
  FinishReason reason = FinishReason::kStop;
  std::string stopped_by;  // stop string or text of the token that ended it; empty with kLength
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  TransferAccount account;
};

// Where a request's output goes. Called by one stage at a time, never blocks. After on_end or on_failure nothing
// follows.
class CompletionSink {
 public:
  virtual ~CompletionSink() = default;
  virtual void on_prompt(const PromptInfo& info) = 0;
  virtual void on_delta(CompletionDelta delta) = 0;
  virtual void on_end(CompletionEnd end) = 0;
  virtual void on_failure(const Failure& failure) = 0;
};

}  // namespace scd
