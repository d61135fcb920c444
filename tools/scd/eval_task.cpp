#include "tools/scd/eval_task.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/log/progress.h"
#include "common/transport/message.h"
#include "tools/scd/answer_score.h"

namespace scd {
namespace {

std::vector<const Encoder*> encoders_of(std::span<const NamedCodec> codecs) {
  std::vector<const Encoder*> encoders;
  for (const NamedCodec& codec : codecs) {
    if (!codec.is_oracle()) encoders.push_back(codec.encoder.get());
  }
  return encoders;
}

std::vector<CodecResult> empty_results(std::span<const NamedCodec> codecs) {
  std::vector<CodecResult> results(codecs.size());
  for (size_t i = 0; i < codecs.size(); ++i) {
    results[i].codec = codecs[i].name;
    results[i].level = codecs[i].level;
  }
  return results;
}

// Makes the experiment stand on the codec's cache.
void use_codec(CacheExperiment& experiment, const NamedCodec& codec, RankCaps rank, CodecResult& result) {
  if (codec.is_oracle()) {
    experiment.use_oracle();
    return;
  }
  rank.level = codec.level;
  const RebuildAccount account = experiment.rebuild(*codec.encoder, *codec.decoder, rank);
  result.wire_bytes += account.payload_bytes + account.payloads * static_cast<int64_t>(kMessageHeaderBytes);
  result.coded_tokens += account.tokens;
  result.encode_ms += account.encode_ms;
  result.decode_ms += account.decode_ms;
}

std::vector<TokenId> answer_ids(const ModelPair& pair, CacheExperiment& experiment, int32_t max_tokens) {
  return experiment.generate(max_tokens, [&](TokenId id) {
    return pair.tokenizer().decode(std::span(&id, 1), /*skip_special=*/true).find('\n') != std::string::npos;
  });
}

std::string answer_text(const ModelPair& pair, std::span<const TokenId> ids) {
  const std::vector<TokenId>& end_ids = pair.consumer().config().end_of_sequence;
  if (!ids.empty() && std::ranges::find(end_ids, ids.back()) != end_ids.end()) ids = ids.first(ids.size() - 1);
  const std::string text = pair.tokenizer().decode(ids, /*skip_special=*/true);
  return text.substr(0, text.find('\n'));
}

struct Asked {
  const Question& question;
  std::vector<TokenId> oracle_answer;
  double oracle_f1 = 0;
  // Question tokens, then the oracle's answer; the last row predicts the answer's last token.
  Continuation oracle = {};

  std::span<const TokenId> forced() const { return std::span(oracle_answer).first(oracle_answer.size() - 1); }
};

Asked ask_oracle(const ModelPair& pair, CacheExperiment& experiment, std::span<const Encoder* const> encoders,
                 const Question& question, int32_t max_tokens) {
  try {
    experiment.set_prompt(pair.tokenizer().encode(make_prompt(question)), encoders);
    experiment.use_oracle();
    Asked asked{question, answer_ids(pair, experiment, max_tokens)};
    asked.oracle_f1 = score_answer(answer_text(pair, asked.oracle_answer), question.answers).f1;
    asked.oracle = experiment.run(asked.forced());
    return asked;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfRange) throw;
    throw Error(error.code(), "question " + question.id + ": " + error.what() +
                                  "; raise --context, or ask for shorter prompts with --passages or --keys");
  }
}

void measure_answer(const ModelPair& pair, CacheExperiment& experiment, const Asked& asked, int32_t max_tokens,
                    CodecResult& result) {
  const std::vector<TokenId> answer = answer_ids(pair, experiment, max_tokens);
  const AnswerScore score = score_answer(answer_text(pair, answer), asked.question.answers);
  result.f1.push_back(score.f1);
  result.oracle_f1.push_back(asked.oracle_f1);
  result.exact_match.push_back(score.exact_match);
  result.same_answer.push_back(answer == asked.oracle_answer ? 1 : 0);
  const std::vector<double> kl = kl_divergence(asked.oracle, experiment.run(asked.forced()));
  // Row i tells of token first_position + i + 1: the last prompt row already predicts the answer's first token.
  const auto question_rows = experiment.prompt_tokens() - experiment.handover() - 1;
  result.kl_question.insert(result.kl_question.end(), kl.begin(), kl.begin() + question_rows);
  result.kl_answer.insert(result.kl_answer.end(), kl.begin() + question_rows, kl.end());
}

double log_likelihood(const Continuation& continuation, std::span<const TokenId> next) {
  double sum = 0;
  const int64_t offset = continuation.rows - static_cast<int64_t>(next.size()) - 1;  // row that predicts next[0]
  for (size_t i = 0; i < next.size(); ++i) {
    const std::span<const float> row = continuation.row(offset + static_cast<int64_t>(i));
    const double largest = *std::max_element(row.begin(), row.end());
    double total = 0;
    for (const float logit : row) total += std::exp(logit - largest);
    sum += row[static_cast<size_t>(next[i])] - largest - std::log(total);
  }
  return sum;
}

}  // namespace

std::vector<CodecResult> evaluate_questions(const ModelPair& pair, CacheExperiment& experiment,
                                            std::span<const NamedCodec> codecs, std::span<const Question> questions,
                                            const EvalTaskOptions& options) {
  std::vector<CodecResult> results = empty_results(codecs);
  const std::vector<const Encoder*> encoders = encoders_of(codecs);
  Progress progress("asking " + std::to_string(questions.size()) + " questions");
  for (size_t i = 0; i < questions.size(); ++i) {
    const Asked asked = ask_oracle(pair, experiment, encoders, questions[i], options.max_tokens);
    for (size_t c = 0; c < codecs.size(); ++c) {
      use_codec(experiment, codecs[c], options.rank, results[c]);
      measure_answer(pair, experiment, asked, options.max_tokens, results[c]);
    }
    progress.update(static_cast<double>(i + 1) / static_cast<double>(questions.size()));
  }
  progress.finish();
  return results;
}

std::vector<CodecResult> evaluate_prose(const ModelPair& /*pair*/, CacheExperiment& experiment,
                                        std::span<const NamedCodec> codecs, std::span<const TokenId> text,
                                        int64_t windows, const EvalTaskOptions& options) {
  const auto window = static_cast<size_t>(options.prose_window);
  const size_t scored = window / 4;
  const size_t available = text.size() / window;
  if (available == 0) {
    throw Error(ErrorCode::kInvalidArgument, "prose of " + std::to_string(text.size()) +
                                                 " tokens is shorter than a window of " + std::to_string(window));
  }
  const size_t count = windows > 0 ? std::min(available, static_cast<size_t>(windows)) : available;
  std::vector<CodecResult> results = empty_results(codecs);
  const std::vector<const Encoder*> encoders = encoders_of(codecs);
  Progress progress("reading " + std::to_string(count) + " windows");
  for (size_t i = 0; i < count; ++i) {
    // Windows are spread over the whole text.
    const std::span<const TokenId> tokens = text.subspan(i * (available / count) * window, window);
    const std::span<const TokenId> next = tokens.last(scored);
    experiment.set_prompt(tokens.first(window - scored), encoders);
    experiment.use_oracle();
    const Continuation oracle = experiment.run(next);
    for (size_t c = 0; c < codecs.size(); ++c) {
      use_codec(experiment, codecs[c], options.rank, results[c]);
      const Continuation continuation = experiment.run(next);
      const std::vector<double> kl = kl_divergence(oracle, continuation);
      results[c].kl_question.insert(results[c].kl_question.end(), kl.begin(), kl.end());
      results[c].log_likelihood += log_likelihood(continuation, next);
      results[c].scored_tokens += static_cast<int64_t>(scored);
    }
    progress.update(static_cast<double>(i + 1) / static_cast<double>(count));
  }
  progress.finish();
  return results;
}

}  // namespace scd
