#include "tools/scd/eval.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>

#include "common/base/error.h"
#include "tools/scd/answer_score.h"
#include "tools/scd/eval_task.h"
#include "tools/scd/interrupt.h"
#include "tools/scd/report.h"
#include "tools/scd/text_tokens.h"

namespace scd {
namespace {

struct EvalOptions {
  ModelPairOptions pair;
  CacheExperimentOptions experiment;
  EvalTaskOptions task;
  QuestionFileOptions file;
  std::vector<std::filesystem::path> tasks;
  std::vector<std::filesystem::path> prose;
  std::vector<std::string> codecs{"oracle", "raw", "scd"};
  size_t limit = 0;
  int32_t passages = 1;
  uint64_t seed = 1;
  int64_t context = 4096;
  size_t workers = 1;
  bool no_exact_layer0 = false;
  std::filesystem::path json;
};

double mean(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double bytes_per_token(const CodecResult& result) {
  return result.coded_tokens > 0 ? static_cast<double>(result.wire_bytes) / static_cast<double>(result.coded_tokens)
                                 : 0;
}

// Null where nothing was sent.
nlohmann::ordered_json ratio_to_bf16(const CodecResult& result, const ModelPair& pair) {
  const double bytes = bytes_per_token(result);
  if (bytes == 0) return nullptr;
  return static_cast<double>(pair.consumer().config().kv_shape(kernels::DType::kBF16).bf16_bytes_per_token()) / bytes;
}

// Against the oracle's answers to the same questions; null where the oracle scored nothing to lose.
void add_paired_loss(nlohmann::ordered_json& row, const CodecResult& result) {
  const std::optional<Interval> loss = paired_loss(result.oracle_f1, result.f1);
  const auto put = [&](const char* key, double Interval::*part) {
    row[key] = loss ? nlohmann::ordered_json((*loss).*part) : nlohmann::ordered_json(nullptr);
  };
  put("f1_loss", &Interval::mean);
  put("f1_loss_low", &Interval::low);
  put("f1_loss_high", &Interval::high);
}

nlohmann::ordered_json row_of(const CodecResult& result, const std::string& task, const ModelPair& pair) {
  nlohmann::ordered_json row = {{"codec", result.codec}, {"level", result.level}, {"task", task}};
  std::vector<double> kl = result.kl_question;
  kl.insert(kl.end(), result.kl_answer.begin(), result.kl_answer.end());
  if (!result.f1.empty()) {
    const Interval f1 = bootstrap_mean(result.f1);
    row.update({{"questions", result.f1.size()},
                {"f1", f1.mean},
                {"f1_low", f1.low},
                {"f1_high", f1.high},
                {"exact_match", mean(result.exact_match)},
                {"same_answer", mean(result.same_answer)},
                {"kl_question", mean(result.kl_question)},
                {"kl_answer", mean(result.kl_answer)}});
    add_paired_loss(row, result);
  } else {
    row["kl_text"] = mean(result.kl_question);
    row["perplexity"] = std::exp(-result.log_likelihood / static_cast<double>(result.scored_tokens));
  }
  row["kl_p99"] = percentile(kl, 0.99);
  row["bytes_per_token"] = bytes_per_token(result);
  row["ratio_to_bf16"] = ratio_to_bf16(result, pair);
  row["encode_ms"] = result.encode_ms;
  row["rebuild_ms"] = result.decode_ms;
  return row;
}

bool has(const nlohmann::ordered_json& row, const char* key) { return row.contains(key) && !row.at(key).is_null(); }

std::string cell(const nlohmann::ordered_json& row, const char* key, double scale, int decimals) {
  return has(row, key) ? format_fixed(row.at(key).get<double>() * scale, decimals) : "-";
}

void print_rows(const nlohmann::ordered_json& rows) {
  TextTable table({"task", "codec", "bytes/token", "vs BF16", "F1", "95 % interval", "F1 loss", "95 % (paired)",
                   "exact", "same answer", "KL question", "KL answer", "KL p99", "perplexity"});
  for (const auto& row : rows) {
    table.add_row(
        {row.at("task"), row.at("codec"), cell(row, "bytes_per_token", 1, 0),
         has(row, "ratio_to_bf16") ? cell(row, "ratio_to_bf16", 1, 2) + "x" : "-", cell(row, "f1", 100, 1),
         has(row, "f1_low") ? cell(row, "f1_low", 100, 1) + " - " + cell(row, "f1_high", 100, 1) : "-",
         has(row, "f1_loss") ? cell(row, "f1_loss", 100, 1) + " %" : "-",
         has(row, "f1_loss") ? cell(row, "f1_loss_low", 100, 1) + " - " + cell(row, "f1_loss_high", 100, 1) : "-",
         cell(row, "exact_match", 100, 1), cell(row, "same_answer", 100, 1),
         has(row, "kl_text") ? cell(row, "kl_text", 1, 4) : cell(row, "kl_question", 1, 4),
         cell(row, "kl_answer", 1, 4), cell(row, "kl_p99", 1, 3), cell(row, "perplexity", 1, 2)});
  }
  table.print(std::cout);
}

std::vector<Question> read_task(const EvalOptions& options, const std::filesystem::path& file) {
  std::vector<Question> questions = read_questions(file, options.file);
  if (options.passages > 1) widen_contexts(questions, options.passages, options.seed);
  if (options.limit > 0 && questions.size() > options.limit) questions.resize(options.limit);
  return questions;
}

void run(EvalOptions options) {
  if (options.tasks.empty() && options.prose.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "nothing to evaluate: name question files with --tasks or text with --prose");
  }
  const Interrupt interrupt;
  options.task.stop = interrupt.token();
  options.experiment.exact_layer0 = !options.no_exact_layer0;
  const ModelPair pair(options.pair);
  std::vector<NamedCodec> codecs;
  for (const std::string& name : options.codecs) codecs.push_back(pair.make_codec(name));
  std::vector<std::unique_ptr<CacheExperiment>> experiments;
  for (size_t i = 0; i < options.workers; ++i) {
    experiments.push_back(
        std::make_unique<CacheExperiment>(pair.producer(), pair.consumer(), options.context, options.experiment));
  }
  Report report;
  const auto add = [&](const std::string& task, const std::vector<CodecResult>& results) {
    for (const CodecResult& result : results) {
      const bool measured = !result.f1.empty() || result.scored_tokens > 0;  // an interrupt may come before
      if (measured) report.add_row(row_of(result, task, pair));
    }
  };
  for (const auto& file : options.tasks) {
    add(task_name(file), evaluate_questions(pair, experiments, codecs, read_task(options, file), options.task));
  }
  for (const auto& file : options.prose) {
    add(file.stem().string(), evaluate_prose(pair, *experiments.front(), codecs, tokens_of_file(pair.tokenizer(), file),
                                             static_cast<int64_t>(options.limit), options.task));
  }
  print_rows(report.rows());
  report.write(options.json);
}

}  // namespace

void add_eval_command(CLI::App& app) {
  const auto options = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand(
      "eval",
      "Judge codecs on questions and prose: F1, exact match, share of answers identical to the oracle's, KL to the\n"
      "oracle on the question's and on the oracle's answer tokens, perplexity, bytes per token. Oracle: the "
      "consumer's\n"
      "own prefill. F1 loss: share of the oracle's F1 that is lost, its interval paired by question. Question files:\n"
      "SQuAD JSON, HotpotQA JSON, bAbI text, JSON lines {context, question, answers}, NQ-open and key-value retrieval\n"
      "of \"Lost in the Middle\" (JSON lines); gzip is understood. Interrupted, it reports what was asked so far.\n"
      "  scd eval --producer BASE --consumer BASE --consumer-adapter ADAPTER --artifact DIR \\\n"
      "           --tasks held_out.jsonl --prose wikitext.txt --codecs oracle,raw,scd --limit 100");
  command->add_option("--producer", options->pair.producer, "Checkpoint of the prefill side")->required();
  command->add_option("--producer-adapter", options->pair.producer_adapter, "LoRA adapter merged into it");
  command->add_option("--consumer", options->pair.consumer, "Checkpoint of the decode side")->required();
  command->add_option("--consumer-adapter", options->pair.consumer_adapter, "LoRA adapter merged into it");
  command
      ->add_option("--artifacts,--artifact", options->pair.artifacts,
                   "Codec artifacts of the pair, comma-separated (scd calibrate makes them): DIR, or NAME=DIR to call "
                   "its codec NAME in --codecs")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--precision", options->pair.precision, "auto, bf16 or fp32")->capture_default_str();
  command->add_option("--device", options->pair.device, "Of models and codecs: cpu or cuda:N")->capture_default_str();
  command->add_option("--tasks", options->tasks, "Question files, comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--prose", options->prose, "Text files for perplexity and KL, comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option(
          "--codecs", options->codecs,
          "Of oracle, raw, lossless, int8, int4, scd, rd, kvtc, droidspeak, lora_delta and names of artifacts; "
          "rd@2 is level 2; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--limit", options->limit, "At most so many questions (windows of prose) a file; 0: all");
  command
      ->add_option("--keys", options->file.keys,
                   "Of key-value retrieval: keep so many keys around the one asked for; 0: all")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  command->add_option("--passages", options->passages, "Join each context with others of its file to so many")
      ->check(CLI::Range(1, 64));
  command->add_option("--seed", options->seed, "Of the joined passages")->capture_default_str();
  command->add_option("--max-tokens", options->task.max_tokens, "Longest answer, tokens; its end is a line end")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--rank-key", options->task.rank.key, "Cap of the key rank; 0: as calibrated")
      ->check(CLI::Range(0, 65535));
  command->add_option("--rank-value", options->task.rank.value, "Cap of the value rank; 0: as calibrated")
      ->check(CLI::Range(0, 65535));
  command->add_option("--rank-hidden", options->task.rank.hidden, "Cap of the hidden rank; 0: as calibrated")
      ->check(CLI::Range(0, 65535));
  command->add_option("--context", options->context, "Longest prompt and answer, tokens")->capture_default_str();
  command->add_option("--sinks", options->experiment.sinks, "First tokens the consumer computes")
      ->capture_default_str();
  command->add_option("--suffix", options->experiment.suffix, "Last tokens the consumer computes, at least")
      ->capture_default_str();
  command->add_flag("--no-exact-layer0", options->no_exact_layer0, "Have layer 0 sent instead of computed");
  command
      ->add_option("--workers", options->workers,
                   "Contexts that are worked on at a time, each with its share of the cores and caches of its own")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the rows to this file");
  command->callback([options] { run(*options); });
}

}  // namespace scd
