#include "tools/scd/bench_pareto.h"

#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <memory>
#include <random>

#include "common/base/error.h"
#include "common/log/progress.h"
#include "common/model/model_config.h"
#include "common/tokenizer/tokenizer.h"
#include "tools/scd/interrupt.h"
#include "tools/scd/pareto_measure.h"
#include "tools/scd/report.h"
#include "tools/scd/server_pair_options.h"
#include "tools/scd/temporary_folder.h"
#include "tools/scd/text_tokens.h"

namespace scd {
namespace {

struct BenchParetoOptions {
  ServerPairOptions servers;
  std::vector<std::string> codecs;
  std::vector<double> bandwidths{0.1, 1, 10, 25, 0};
  std::vector<int64_t> prompt_tokens{256, 1024, 4096};
  int32_t repeats = 3;
  std::filesystem::path text;
  uint64_t seed = 1;
  std::filesystem::path quality;
  std::string quality_task;
  std::filesystem::path csv;
  std::filesystem::path json;
};

// Lengths that both models take, with the token that is generated; ascending, each once.
std::vector<int64_t> usable_lengths(const BenchParetoOptions& options) {
  const int64_t most = std::min(ModelConfig::from_directory(options.servers.producer).max_positions,
                                ModelConfig::from_directory(options.servers.consumer).max_positions) -
                       1;
  std::vector<int64_t> lengths = options.prompt_tokens;
  std::ranges::sort(lengths);
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  const auto too_long = std::ranges::find_if(lengths, [most](int64_t tokens) { return tokens > most; });
  for (auto tokens = too_long; tokens != lengths.end(); ++tokens) {
    std::cerr << "scd: prompts of " << *tokens << " tokens are left out: the models take " << most << "\n";
  }
  lengths.erase(too_long, lengths.end());
  if (!lengths.empty()) return lengths;
  throw Error(ErrorCode::kInvalidArgument,
              "--prompt-tokens: the models take at most " + std::to_string(most) + " tokens; ask for shorter prompts");
}

std::vector<TokenId> random_tokens(const BenchParetoOptions& options, int64_t count) {
  const int32_t vocab = std::min(ModelConfig::from_directory(options.servers.producer).vocab,
                                 ModelConfig::from_directory(options.servers.consumer).vocab);
  std::mt19937_64 random(options.seed);
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<TokenId>(random() % static_cast<uint64_t>(vocab)));
  }
  return tokens;
}

std::vector<TokenId> prompt_source(const BenchParetoOptions& options, int64_t longest) {
  if (options.text.empty()) return random_tokens(options, longest * options.repeats);
  std::vector<TokenId> tokens =
      tokens_of_file(Tokenizer::from_file(options.servers.consumer / "tokenizer.json"), options.text);
  if (static_cast<int64_t>(tokens.size()) >= longest) return tokens;
  throw Error(ErrorCode::kInvalidArgument, options.text.string() + ": " + std::to_string(tokens.size()) +
                                               " tokens are less than the longest prompt, " + std::to_string(longest) +
                                               "; give a longer text or shorter --prompt-tokens");
}

std::string link_name(double gbps) {
  std::ostringstream text;
  text << gbps;
  return gbps > 0 ? text.str() : "uncapped";
}

std::string label(const nlohmann::ordered_json& row, const ParetoPlan& plan) {
  for (const ParetoCodec& codec : plan.codecs) {
    if (codec.name == row.at("codec") && codec.level == row.at("level")) return codec.request();
  }
  return row.at("codec");
}

std::string cell(const nlohmann::ordered_json& row, const char* key, int decimals, const char* unit = "") {
  return row.at(key).is_number() ? format_fixed(row.at(key).get<double>(), decimals) + unit : "-";
}

void print_rows(const nlohmann::ordered_json& rows, const ParetoPlan& plan) {
  std::vector<std::string> header{"Gbit/s",    "tokens",    "regime",  "codec",  "KiB",
                                  "bytes/tok", "raw/bytes", "TTFT ms", "vs raw", "vs oracle"};
  for (const TtftPart& part : kTtftParts) header.emplace_back(part.name);
  TextTable table(header);
  for (const auto& row : rows) {
    std::vector<std::string> cells{link_name(row.at("bandwidth_gbps")),
                                   row.at("prompt_tokens").dump(),
                                   row.at("regime") == kHandoff ? "handoff" : "prefill in path",
                                   label(row, plan),
                                   format_fixed(row.at("wire_bytes").get<double>() / 1024, 0),
                                   cell(row, "bytes_per_token", 0),
                                   cell(row, "wire_ratio_to_raw", 2, "x"),
                                   cell(row, "ttft_ms", 1),
                                   cell(row, "ttft_ratio_to_raw", 2, "x"),
                                   cell(row, "ttft_ratio_to_oracle", 2, "x")};
    for (const TtftPart& part : kTtftParts) cells.push_back(cell(row, part.key, 1));
    table.add_row(cells);
  }
  table.print(std::cout);
  std::cout << std::endl;
}

void write_text(const std::filesystem::path& file, const std::string& text) {
  if (file.empty()) return;
  std::error_code failed;
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), failed);  // opening tells
  std::ofstream out(file, std::ios::trunc | std::ios::binary);
  out << text;
  if (!out.flush()) throw Error(ErrorCode::kUnavailable, file.string() + ": cannot be written");
}

// After each bandwidth: hours of measuring are not lost with the last of them.
void write_rows(const BenchParetoOptions& options, const nlohmann::ordered_json& rows) {
  Report report;
  for (const auto& row : rows) report.add_row(row);
  report.write(options.json);
  write_text(options.csv, to_csv(report.rows()));
}

nlohmann::ordered_json measure_at(const BenchParetoOptions& options, const ParetoPlan& plan, double gbps,
                                  const std::filesystem::path& folder, const std::stop_token& stop) {
  const std::string link = gbps > 0 ? link_name(gbps) + " Gbit/s" : "uncapped link";
  Progress progress(link + ": starting servers, measuring");
  const auto pairs = start_pairs(options.servers, gbps, folder, stop);
  const auto points = measure_pareto(pairs, plan, gbps, stop, [&](size_t done, size_t of, const std::string& note) {
    progress.update(static_cast<double>(done) / static_cast<double>(of), note);
  });
  progress.finish();
  return pareto_rows(points);
}

void join(const BenchParetoOptions& options, const nlohmann::ordered_json& quality, nlohmann::ordered_json& rows) {
  if (options.quality.empty()) return;
  if (join_quality(rows, quality, options.quality_task) == 0) {
    std::cerr << "scd: " << options.quality.string() << " tells nothing of the codecs measured here\n";
  }
}

void run(BenchParetoOptions options) {
  setenv("OMP_WAIT_POLICY", "PASSIVE", 0);  // both servers share this machine's cores: threads that wait must not spin
  const Interrupt interrupt;
  ParetoPlan plan{.codecs = choose_codecs(options.codecs, options.servers.artifacts, options.servers.producer),
                  .prompt_tokens = usable_lengths(options),
                  .repeats = options.repeats};
  plan.text = prompt_source(options, plan.prompt_tokens.back());
  // Two prompts' worth: the last request's pages may not be back when the next one comes.
  options.servers.cached_tokens = 2 * (plan.prompt_tokens.back() + 16);
  nlohmann::ordered_json quality, rows = nlohmann::ordered_json::array();
  if (!options.quality.empty()) quality = read_report(options.quality).at("rows");
  const TemporaryFolder folder("scd-pareto");
  std::cout << "Time to the first token, medians of " << plan.repeats
            << " runs. Prefill in path: a prefix asked for the first time; handoff: its codes are stored.\n"
               "raw/bytes: raw's wire bytes over these; vs: this time over theirs, below 1 is faster.\n\n";
  for (const double gbps : options.bandwidths) {
    nlohmann::ordered_json measured = measure_at(options, plan, gbps, folder.path(), interrupt.token());
    join(options, quality, measured);
    print_rows(measured, plan);
    rows.insert(rows.end(), measured.begin(), measured.end());
    write_rows(options, rows);
  }
}

void add_grid(CLI::App* command, BenchParetoOptions& options) {
  command
      ->add_option(
          "--codecs", options.codecs,
          "As in scd eval; rd@2 is one level, rd all of them; oracle and raw are always measured. Default: all "
          "that the artifacts allow")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option("--bandwidths", options.bandwidths, "Of the emulated link, Gbit/s, comma-separated; 0: not capped")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(0.0, 10000.0))
      ->capture_default_str();
  command
      ->add_option("--prompt-tokens", options.prompt_tokens, "Lengths, comma-separated; as the models' context allows")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{64}, int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--repeats", options.repeats, "Runs of each; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--text", options.text,
                      "Cut prompts from this text; else random tokens (bytes of entropy-coded "
                      "codecs then say nothing)");
  command->add_option("--seed", options.seed, "Of the random tokens")->capture_default_str();
}

}  // namespace

void add_bench_pareto_command(CLI::App& bench) {
  const auto options = std::make_shared<BenchParetoOptions>();
  CLI::App* command = bench.add_subcommand(
      "pareto",
      "Start real server pairs over emulated links and measure the time to the first token and the bytes of every "
      "codec\n"
      "and level, prompt length and regime. Models may have random weights (scd make-model): then only times count.\n"
      "  scd bench pareto --producer BASE --consumer BASE --consumer-adapter ADAPTER --artifacts DIR --text FILE \\\n"
      "                   --quality eval.json --json pareto.json && scd plot pareto.json eval.json --out FOLDER");
  add_server_pair_options(*command, options->servers);
  command->get_option("--producer")->required();
  command->get_option("--consumer")->required();
  add_grid(command, *options);
  command->add_option("--quality", options->quality, "What scd eval --json wrote: its F1 and KL are added to the rows");
  command->add_option("--quality-task", options->quality_task, "Which of its tasks, where it has several");
  command->add_option("--csv", options->csv, "Write the rows to this file, comma-separated");
  command->add_option("--json", options->json, "Write the rows to this file");
  command->callback([options] { run(*options); });
}

}  // namespace scd
