// One sequence from its first token to its last: sampling, text, stopping.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/tokenizer/streaming_detokenizer.h"
#include "common/tokenizer/tokenizer.h"
#include "decode_server/completion.h"
#include "decode_server/generate/sampler.h"
#include "decode_server/generate/stop_matcher.h"

namespace scd {

class Generation {
 public:
  // end_of_sequence: of the model. The tokenizer must outlive this; `request` is copied where needed.
  Generation(const CompletionRequest& request, const Tokenizer& tokenizer, const std::vector<TokenId>& end_of_sequence);

  struct Step {
    CompletionDelta delta;
    std::optional<FinishReason> finish;
    std::string stopped_by;
  };
  // Gives the next token, which is then to be taken. Not after a finish.
  Sampler& sampler() { return sampler_; }
  Step take(const SampledToken& token);

  int64_t tokens() const { return tokens_; }  // sampled so far
  bool next_is_last() const { return tokens_ + 1 >= stop_.max_tokens; }
  TokenId last_token() const { return last_; }

 private:
  bool ends_sequence(TokenId id) const;
  void add_text(const std::string& text, Step& step);
  void finish(FinishReason reason, Step& step);
  PositionLogprobs describe(const SampledToken& token) const;

  const Tokenizer& tokenizer_;
  const StopRequest stop_;
  const int32_t min_tokens_;
  const bool wants_logprobs_;
  std::vector<TokenId> end_ids_;  // sorted; end of sequence (unless ignored) and stop ids
  Sampler sampler_;
  StreamingDetokenizer detokenizer_;
  StopMatcher stop_matcher_;
  int64_t tokens_ = 0;
  TokenId last_ = 0;
};

}  // namespace scd
