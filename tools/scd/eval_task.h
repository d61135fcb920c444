// One task of `scd eval`: every codec on the same prompts, against the oracle.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "tools/scd/cache_experiment.h"
#include "tools/scd/model_pair.h"
#include "tools/scd/questions.h"

namespace scd {

// What a codec gave on each item of a task; entries of the same index belong to the same question.
struct CodecResult {
  std::string codec;
  int32_t level = 0;
  std::vector<double> f1;           // [questions], in [0, 1]
  std::vector<double> oracle_f1;    // [questions], of the oracle's answers to the same questions
  std::vector<double> exact_match;  // [questions], 0 or 1
  std::vector<double> same_answer;  // [questions], 1 where the token ids are the oracle's
  std::vector<double> kl_question;  // nats, one a native prompt token (prose: a scored token)
  std::vector<double> kl_answer;    // nats, one a token of the oracle's answer, the one that ends it included
  double log_likelihood = 0;        // sum over scored tokens of prose
  int64_t scored_tokens = 0;
  int64_t wire_bytes = 0;  // headers included
  int64_t coded_tokens = 0;
  double encode_ms = 0;
  double decode_ms = 0;
};

struct EvalTaskOptions {
  int32_t max_tokens = 48;      // of an answer
  int64_t prose_window = 1024;  // tokens of a window of prose, of which the last quarter is scored
  RankCaps rank;
  std::stop_token stop = {};  // nothing is begun after a request: results are of what was asked and read before
};

// Asks every question with every codec; neighbours that share their context share its hand-over and its codes. An
// answer ends with the first token whose text holds a line end, as a request with the stop string "\n" does; that token
// is one of the answer's ids, and not of its text. Items longer than the experiment's cache are refused with their id.
// `experiments`: all alike; as many contexts are worked on at a time. How many changes no result, rounding aside where
// contexts begin alike.
std::vector<CodecResult> evaluate_questions(const ModelPair& pair,
                                            std::span<const std::unique_ptr<CacheExperiment>> experiments,
                                            std::span<const NamedCodec> codecs, std::span<const Question> questions,
                                            const EvalTaskOptions& options);

// Windows of running text: perplexity and KL of the scored tokens given a rebuilt cache of those before.
std::vector<CodecResult> evaluate_prose(const ModelPair& pair, CacheExperiment& experiment,
                                        std::span<const NamedCodec> codecs, std::span<const TokenId> text,
                                        int64_t windows, const EvalTaskOptions& options);

}  // namespace scd
