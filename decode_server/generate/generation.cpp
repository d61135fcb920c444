#include "decode_server/generate/generation.h"

#include <algorithm>

namespace scd {
namespace {

std::vector<TokenId> end_ids_of(const StopRequest& stop, const std::vector<TokenId>& end_of_sequence) {
  std::vector<TokenId> ids = stop.ids;
  if (!stop.ignore_end_of_sequence) ids.insert(ids.end(), end_of_sequence.begin(), end_of_sequence.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

Generation::Generation(const CompletionRequest& request, const Tokenizer& tokenizer,
                       const std::vector<TokenId>& end_of_sequence)
    : tokenizer_(tokenizer),
      stop_(request.stop),
      min_tokens_(request.sampling.min_tokens),
      wants_logprobs_(request.sampling.logprobs >= 0),
      end_ids_(end_ids_of(request.stop, end_of_sequence)),
      sampler_(request.sampling, request.prompt, end_ids_),
      detokenizer_(tokenizer, {.skip_special = true, .continues_text = true}),
      stop_matcher_(request.stop.strings) {}

Generation::Step Generation::take(const SampledToken& token) {
  last_ = token.id;
  ++tokens_;
  Step step;
  step.delta.ids.push_back(token.id);
  if (wants_logprobs_) step.delta.logprobs.push_back(describe(token));
  if (ends_sequence(token.id)) {
    step.stopped_by = tokenizer_.id_to_token(token.id);
    finish(FinishReason::kStop, step);
    return step;
  }
  add_text(detokenizer_.push(token.id), step);
  if (!step.finish && tokens_ >= stop_.max_tokens) finish(FinishReason::kLength, step);
  return step;
}

bool Generation::ends_sequence(TokenId id) const { return std::binary_search(end_ids_.begin(), end_ids_.end(), id); }

void Generation::add_text(const std::string& text, Step& step) {
  if (tokens_ < min_tokens_) {
    step.delta.text += stop_matcher_.pass(text);
    return;
  }
  StopMatcher::Output output = stop_matcher_.push(text);
  step.delta.text += output.text;
  if (!output.stopped) return;
  step.finish = FinishReason::kStop;
  step.stopped_by = output.stop_string;
}

void Generation::finish(FinishReason reason, Step& step) {
  add_text(detokenizer_.flush(), step);
  if (step.finish) return;  // the last characters completed a stop string
  step.delta.text += stop_matcher_.flush();
  step.finish = reason;
}

PositionLogprobs Generation::describe(const SampledToken& token) const {
  auto text_of = [this](TokenId id) { return tokenizer_.decode(std::span(&id, 1)); };
  PositionLogprobs logprobs{.chosen = {token.id, text_of(token.id), token.logprob}, .most_probable = {}};
  for (const auto& [id, logprob] : token.most_probable) {
    logprobs.most_probable.push_back({id, text_of(id), logprob});
  }
  return logprobs;
}

}  // namespace scd
