#include "tools/scd/bench_pair.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>

#include "common/base/error.h"
#include "common/log/progress.h"
#include "tools/scd/account_parts.h"
#include "tools/scd/answer_score.h"
#include "tools/scd/client_options.h"
#include "tools/scd/questions.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

struct BenchPairOptions {
  ClientOptions client;
  std::vector<std::filesystem::path> files;
  QuestionFileOptions file;
  std::vector<std::string> codecs{"oracle", "raw", "scd"};
  size_t questions = 0;  // 0: all
  uint32_t max_tokens = 48;
  int show = 2;
  std::filesystem::path json;
};

struct Answer {
  size_t question = 0;
  size_t file = 0;     // of the question
  bool first = false;  // of its context
  Completion completion;
  AnswerScore score;
};

struct CodecRun {
  std::string codec;
  std::vector<Answer> answers;
};

// One file's questions of one regime: what a row of the report is about.
struct Group {
  size_t file = 0;
  bool first = false;
  bool holds(const Answer& answer) const { return answer.file == file && answer.first == first; }
};

CodecRun only(const CodecRun& run, const Group& group) {
  CodecRun part{run.codec, {}};
  std::ranges::copy_if(run.answers, std::back_inserter(part.answers),
                       [&](const Answer& answer) { return group.holds(answer); });
  return part;
}

std::vector<double> column(const CodecRun& run, bool first, AccountTime milliseconds) {
  std::vector<double> values;
  for (const Answer& answer : run.answers) {
    if (answer.first == first) values.push_back((answer.completion.finish.transfer().*milliseconds)());
  }
  return values;
}

double median(const std::vector<double>& values) { return percentile(values, 0.5); }

// Sums over all answers, so that long prompts weigh as much as they cost.
struct WireCost {
  double bytes_per_token = 0;
  double ratio_to_bf16 = 0;
};
WireCost wire_cost(const CodecRun& run) {
  double bytes = 0, tokens = 0, bf16_bytes = 0;
  for (const Answer& answer : run.answers) {
    const v1::TransferAccount& account = answer.completion.finish.transfer();
    bytes += static_cast<double>(account.wire_bytes());
    tokens += account.wire_bytes() > 0 ? account.handover_tokens() : 0;
    bf16_bytes += account.ratio_to_bf16() * static_cast<double>(account.wire_bytes());
  }
  return bytes > 0 ? WireCost{bytes / tokens, bf16_bytes / bytes} : WireCost{};
}

struct FileQuestion : Question {
  size_t file = 0;  // index into options.files
};

std::vector<FileQuestion> load_questions(const BenchPairOptions& options) {
  std::vector<FileQuestion> questions;
  for (size_t file = 0; file < options.files.size(); ++file) {
    for (Question& question : read_questions(options.files[file], options.file))
      questions.push_back({std::move(question), file});
  }
  if (options.questions > 0 && questions.size() > options.questions) questions.resize(options.questions);
  return questions;
}

Answer ask(CompletionClient& client, const BenchPairOptions& options, const Question& question,
           const std::string& codec, const std::string& salt, bool show) {
  v1::CompleteRequest request;
  request.set_skip_reading_prefix_cache(true);
  request.set_text(make_prompt(question));
  request.set_max_tokens(options.max_tokens);
  request.set_temperature(0);
  request.add_stop("\n");
  request.set_cache_salt(salt);
  set_codec(request, codec);
  if (show) std::cout << "  [" << codec << "] " << question.question << "\n   ->" << std::flush;
  Answer answer;
  answer.completion = client.complete(request, [show](const std::string& text) {
    if (show) std::cout << text << std::flush;
  });
  answer.score = score_answer(answer.completion.text, question.answers);
  if (show) std::cout << "   (expected: " << question.answers.front() << ")\n" << std::flush;
  return answer;
}

// Codecs take turns context by context, so that a drift of the machine's speed meets all of them.
std::vector<CodecRun> ask_all(const BenchPairOptions& options, const std::vector<FileQuestion>& questions) {
  CompletionClient client(options.client);
  const std::string salt = "bench-" + std::to_string(std::random_device{}());  // codes of earlier runs do not count
  std::vector<CodecRun> runs;
  for (const std::string& codec : options.codecs) runs.push_back({codec, {}});
  Progress progress("asking " + std::to_string(questions.size()) + " questions");
  int contexts = 0;
  for (size_t begin = 0, end = 0; begin < questions.size(); begin = end, ++contexts) {
    while (end < questions.size() && questions[end].context == questions[begin].context) ++end;
    for (CodecRun& run : runs) {
      for (size_t i = begin; i < end; ++i) {
        Answer answer = ask(client, options, questions[i], run.codec, salt, contexts < options.show && i == begin);
        answer.question = i;
        answer.file = questions[i].file;
        answer.first = i == begin;
        run.answers.push_back(std::move(answer));
      }
    }
    progress.update(static_cast<double>(end) / static_cast<double>(questions.size()));
  }
  progress.finish();
  return runs;
}

double same_answer_share(const CodecRun& run, const CodecRun& oracle) {
  size_t same = 0;
  for (size_t i = 0; i < run.answers.size(); ++i) {
    same += run.answers[i].completion.token_ids == oracle.answers[i].completion.token_ids ? 1 : 0;
  }
  return static_cast<double>(same) / static_cast<double>(run.answers.size());
}

const CodecRun* find_oracle(const std::vector<CodecRun>& runs) {
  for (const CodecRun& run : runs) {
    if (run.codec == "oracle") return &run;
  }
  return nullptr;
}

std::string verdict(const CodecRun& run, const CodecRun* oracle, bool first) {
  if (oracle == nullptr || &run == oracle) return "";
  const double ours = median(column(run, first, &v1::TransferAccount::ttft_ms));
  const double theirs = median(column(*oracle, first, &v1::TransferAccount::ttft_ms));
  const double ratio = ours > theirs ? ours / theirs : theirs / ours;
  return format_fixed(ratio, 2) + (ours > theirs ? "x slower" : "x faster");
}

void print_quality(const std::vector<CodecRun>& runs) {
  const CodecRun* oracle = find_oracle(runs);
  TextTable table({"codec", "bytes/token", "vs BF16", "F1", "95 % interval", "exact", "same as oracle", "TTFT first ms",
                   "TTFT next ms", "first vs oracle", "next vs oracle"});
  for (const CodecRun& run : runs) {
    std::vector<double> f1, exact;
    for (const Answer& answer : run.answers) {
      f1.push_back(100 * answer.score.f1);
      exact.push_back(answer.score.exact_match);
    }
    const Interval interval = bootstrap_mean(f1);
    const WireCost cost = wire_cost(run);
    table.add_row({run.codec, format_fixed(cost.bytes_per_token, 0),
                   cost.bytes_per_token > 0 ? format_fixed(cost.ratio_to_bf16, 2) + "x" : "-",
                   format_fixed(interval.mean, 1),
                   format_fixed(interval.low, 1) + " - " + format_fixed(interval.high, 1),
                   format_percent(bootstrap_mean(exact, 1).mean),
                   oracle != nullptr ? format_percent(same_answer_share(run, *oracle)) : "-",
                   format_fixed(median(column(run, true, &v1::TransferAccount::ttft_ms)), 1),
                   format_fixed(median(column(run, false, &v1::TransferAccount::ttft_ms)), 1),
                   verdict(run, oracle, true), verdict(run, oracle, false)});
  }
  table.print(std::cout);
}

void print_parts(const std::vector<CodecRun>& runs) {
  std::vector<std::string> header{"codec", "question"};
  for (const TtftPart& part : kTtftParts) header.emplace_back(part.name);
  header.emplace_back("TTFT ms");
  TextTable table(header);
  for (const CodecRun& run : runs) {
    for (const bool first : {true, false}) {
      std::vector<std::string> cells{run.codec, first ? "first" : "next"};
      for (const AccountTime part : kPartTimes) cells.push_back(format_fixed(median(column(run, first, part)), 1));
      cells.push_back(format_fixed(median(column(run, first, &v1::TransferAccount::ttft_ms)), 1));
      table.add_row(cells);
    }
  }
  table.print(std::cout);
}

// `oracle`: its answers to the same questions, or none. KL and perplexity are not to be had from outside the server.
nlohmann::ordered_json row_of(const CodecRun& run, const CodecRun* oracle, bool first, const std::string& task) {
  const WireCost cost = wire_cost(run);
  const auto count = static_cast<double>(run.answers.size());
  std::vector<double> f1;
  double exact = 0;
  for (const Answer& answer : run.answers) {
    f1.push_back(answer.score.f1);
    exact += answer.score.exact_match;
  }
  const Interval interval = bootstrap_mean(f1);
  nlohmann::ordered_json row = {{"codec", run.codec},
                                {"level", 0},
                                {"task", task},
                                {"regime", first ? kPrefillInPath : kHandoff},
                                {"questions", run.answers.size()},
                                {"f1", interval.mean},
                                {"f1_low", interval.low},
                                {"f1_high", interval.high},
                                {"exact_match", exact / count},
                                {"bytes_per_token", cost.bytes_per_token},
                                {"ttft_ms", median(column(run, first, &v1::TransferAccount::ttft_ms))}};
  if (oracle != nullptr) row["same_answer"] = same_answer_share(run, *oracle);
  if (cost.bytes_per_token > 0) row["ratio_to_bf16"] = cost.ratio_to_bf16;
  for (size_t part = 0; part < kTtftParts.size(); ++part) {
    row[kTtftParts[part].key] = median(column(run, first, kPartTimes[part]));
  }
  return row;
}

void write_json(const BenchPairOptions& options, const std::vector<CodecRun>& runs) {
  const CodecRun* oracle = find_oracle(runs);
  Report report;
  for (const CodecRun& run : runs) {
    for (size_t file = 0; file < options.files.size(); ++file) {
      for (const bool first : {true, false}) {
        const Group group{file, first};
        const CodecRun part = only(run, group);
        if (part.answers.empty()) continue;
        std::optional<CodecRun> reference;
        if (oracle != nullptr) reference = only(*oracle, group);
        report.add_row(row_of(part, reference ? &*reference : nullptr, first, task_name(options.files[file])));
      }
    }
  }
  report.write(options.json);
}

void warn_of_fallbacks(const std::vector<CodecRun>& runs) {
  for (const CodecRun& run : runs) {
    size_t fallbacks = 0;
    std::string reason;
    for (const Answer& answer : run.answers) {
      if (const std::string& why = answer.completion.finish.transfer().fallback_reason(); !why.empty()) {
        ++fallbacks;
        reason = why;
      }
    }
    if (fallbacks > 0) {
      std::cout << "warning: " << fallbacks << " of " << run.answers.size() << " requests of " << run.codec
                << " fell back: " << reason << "\n";
    }
  }
}

void run(const BenchPairOptions& options) {
  const std::vector<FileQuestion> questions = load_questions(options);
  const std::vector<CodecRun> runs = ask_all(options, questions);
  std::cout << "\nAnswers and bytes (" << questions.size()
            << " questions; bytes/token counts headers; TTFT: medians)\n";
  print_quality(runs);
  std::cout << "\nWhere the time to the first token goes (medians, ms; first: prefill in path, next: hand-off)\n";
  print_parts(runs);
  warn_of_fallbacks(runs);
  write_json(options, runs);
}

}  // namespace

void add_bench_pair_command(CLI::App& bench) {
  const auto options = std::make_shared<BenchPairOptions>();
  CLI::App* command = bench.add_subcommand(
      "pair",
      "Ask a running pair a question set with each codec: bytes per token, F1, and the parts of the time to the first\n"
      "token, for a context's first question (prefill in path) and for its next ones (hand-off: the codes exist).");
  add_client_options(*command, options->client);
  command
      ->add_option("--questions", options->files, "Question files as `scd eval` reads them; may be given several times")
      ->required()
      ->allow_extra_args(false);
  command
      ->add_option("--keys", options->file.keys, "Of key-value retrieval: keep so many keys around the one asked for")
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("--limit", options->questions, "Use the first N questions; 0: all")->capture_default_str();
  command
      ->add_option("--codecs", options->codecs,
                   "Comma-separated, of oracle, raw, lossless, int8, int4, scd, rd; rd@2 is level 2")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--max-tokens", options->max_tokens, "Longest answer, tokens")->capture_default_str();
  command->add_option("--show", options->show, "Print the streamed answers of so many contexts' first questions")
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the rows to this file");
  command->callback([options] { run(*options); });
}

}  // namespace scd
