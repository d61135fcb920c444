#include "tools/scd/eval_task.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "common/base/error.h"
#include "common/log/progress.h"
#include "common/transport/message.h"
#include "tools/scd/answer_score.h"
#include "tools/scd/run_tasks.h"

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

// Results of other items of the same task.
void append(const CodecResult& from, CodecResult& to) {
  const auto add = [&](std::vector<double> CodecResult::*values) {
    (to.*values).insert((to.*values).end(), (from.*values).begin(), (from.*values).end());
  };
  for (const auto values : {&CodecResult::f1, &CodecResult::oracle_f1, &CodecResult::exact_match,
                            &CodecResult::same_answer, &CodecResult::kl_question, &CodecResult::kl_answer}) {
    add(values);
  }
  to.wire_bytes += from.wire_bytes;
  to.coded_tokens += from.coded_tokens;
  to.encode_ms += from.encode_ms;
  to.decode_ms += from.decode_ms;
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

std::vector<std::vector<TokenId>> answer_ids(const ModelPair& pair, CacheExperiment& experiment, int32_t max_tokens) {
  return experiment.generate_all(max_tokens, [&](TokenId id) {
    return pair.tokenizer().decode(std::span(&id, 1), /*skip_special=*/true).find('\n') != std::string::npos;
  });
}

std::string answer_text(const ModelPair& pair, std::span<const TokenId> ids) {
  const std::vector<TokenId>& end_ids = pair.consumer().config().end_of_sequence;
  if (!ids.empty() && std::ranges::find(end_ids, ids.back()) != end_ids.end()) ids = ids.first(ids.size() - 1);
  const std::string text = pair.tokenizer().decode(ids, /*skip_special=*/true);
  return text.substr(0, text.find('\n'));
}

// Questions about one context, and what the oracle says to them. By question:
struct Asked {
  std::span<const Question> questions;
  std::vector<std::vector<TokenId>> answers = {};
  std::vector<std::vector<TokenId>> forced = {};  // the answers without their last tokens
  std::vector<double> f1 = {};
  // Question tokens, then the forced ones; the last row predicts the answer's last token.
  std::vector<Continuation> truth = {};
};

// The next questions about one context that are asked in one batch.
std::span<const Question> next_batch(std::span<const Question> questions) {
  const auto other = std::ranges::find_if(
      questions, [&](const Question& question) { return question.context != questions.front().context; });
  const auto count = static_cast<size_t>(other - questions.begin());
  return questions.first(std::min(count, PromptBatch::kMostPrompts));
}

std::vector<std::span<const Question>> batches_of(std::span<const Question> questions) {
  std::vector<std::span<const Question>> batches;
  while (!questions.empty()) {
    batches.push_back(next_batch(questions));
    questions = questions.subspan(batches.back().size());
  }
  return batches;
}

std::vector<std::vector<TokenId>> prompts_of(const ModelPair& pair, const CacheExperiment& experiment,
                                             std::span<const Question> questions, int32_t max_tokens) {
  std::vector<std::vector<TokenId>> prompts;
  for (const Question& question : questions) {
    prompts.push_back(pair.tokenizer().encode(make_prompt(question)));
    const int64_t tokens = std::ssize(prompts.back()) + max_tokens;
    if (tokens <= experiment.max_tokens()) continue;
    throw Error(ErrorCode::kOutOfRange, "question " + question.id + ": its prompt and answer may have " +
                                            std::to_string(tokens) + " tokens, there is room for " +
                                            std::to_string(experiment.max_tokens()) +
                                            "; raise --context, or ask for shorter prompts with --passages or --keys");
  }
  return prompts;
}

Asked ask_oracle(const ModelPair& pair, CacheExperiment& experiment, std::span<const Encoder* const> encoders,
                 std::span<const Question> questions, int32_t max_tokens) {
  experiment.set_prompts(prompts_of(pair, experiment, questions, max_tokens), encoders);
  experiment.use_oracle();
  Asked asked{questions, answer_ids(pair, experiment, max_tokens)};
  for (size_t i = 0; i < questions.size(); ++i) {
    const std::vector<TokenId>& answer = asked.answers[i];
    asked.forced.emplace_back(answer.begin(), answer.end() - 1);
    asked.f1.push_back(score_answer(answer_text(pair, answer), questions[i].answers).f1);
  }
  asked.truth = experiment.run_all(asked.forced);
  return asked;
}

void measure_answers(const ModelPair& pair, CacheExperiment& experiment, const Asked& asked, int32_t max_tokens,
                     CodecResult& result) {
  const std::vector<Continuation> continuations = experiment.run_all(asked.forced);
  const std::vector<std::vector<TokenId>> answers = answer_ids(pair, experiment, max_tokens);
  for (size_t i = 0; i < answers.size(); ++i) {
    const AnswerScore score = score_answer(answer_text(pair, answers[i]), asked.questions[i].answers);
    result.f1.push_back(score.f1);
    result.oracle_f1.push_back(asked.f1[i]);
    result.exact_match.push_back(score.exact_match);
    result.same_answer.push_back(answers[i] == asked.answers[i] ? 1 : 0);
    const std::vector<double> kl = kl_divergence(asked.truth[i], continuations[i]);
    // Row i tells of token first_position + i + 1: the last prompt row already predicts the answer's first token.
    const auto question_rows = experiment.prompt_tokens(i) - experiment.handover() - 1;
    result.kl_question.insert(result.kl_question.end(), kl.begin(), kl.begin() + question_rows);
    result.kl_answer.insert(result.kl_answer.end(), kl.begin() + question_rows, kl.end());
  }
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

std::vector<CodecResult> evaluate_questions(const ModelPair& pair,
                                            std::span<const std::unique_ptr<CacheExperiment>> experiments,
                                            std::span<const NamedCodec> codecs, std::span<const Question> questions,
                                            const EvalTaskOptions& options) {
  const std::vector<const Encoder*> encoders = encoders_of(codecs);
  const std::vector<std::span<const Question>> batches = batches_of(questions);
  std::vector<std::vector<CodecResult>> by_batch(batches.size(), empty_results(codecs));
  Progress progress("asking " + std::to_string(questions.size()) + " questions");
  size_t done = 0;
  std::mutex mutex;  // of progress and done
  run_tasks({batches.size(), experiments.size(), options.stop}, [&](size_t b, size_t worker) {
    CacheExperiment& experiment = *experiments[worker];
    const Asked asked = ask_oracle(pair, experiment, encoders, batches[b], options.max_tokens);
    for (size_t c = 0; c < codecs.size(); ++c) {
      use_codec(experiment, codecs[c], options.rank, by_batch[b][c]);
      measure_answers(pair, experiment, asked, options.max_tokens, by_batch[b][c]);
    }
    const std::scoped_lock lock(mutex);
    done += batches[b].size();
    progress.update(static_cast<double>(done) / static_cast<double>(questions.size()));
  });
  if (done == questions.size()) progress.finish();
  std::vector<CodecResult> results = empty_results(codecs);
  for (const std::vector<CodecResult>& batch : by_batch) {
    for (size_t c = 0; c < codecs.size(); ++c) append(batch[c], results[c]);
  }
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
  for (size_t i = 0; i < count && !options.stop.stop_requested(); ++i) {
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
