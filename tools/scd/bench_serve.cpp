#include "tools/scd/bench_serve.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>

#include "common/base/error.h"
#include "common/codec/registry.h"
#include "common/log/progress.h"
#include "common/tokenizer/tokenizer.h"
#include "tools/scd/client_options.h"
#include "tools/scd/interrupt.h"
#include "tools/scd/load_runner.h"
#include "tools/scd/pareto_codecs.h"
#include "tools/scd/pareto_rows.h"
#include "tools/scd/questions.h"
#include "tools/scd/report.h"
#include "tools/scd/server_pair_options.h"
#include "tools/scd/temporary_folder.h"
#include "tools/scd/text_tokens.h"

namespace scd {
namespace {

struct BenchServeOptions {
  ClientOptions client;
  ServerPairOptions servers;  // to start; without a producer the client's server is asked
  double bandwidth_gbps = 0;
  std::vector<std::string> codecs;
  std::vector<double> rates;
  std::vector<int32_t> concurrencies;
  WorkloadOptions workload;
  std::filesystem::path dataset;
  QuestionFileOptions dataset_file;
  std::filesystem::path text;
  uint32_t output_tokens = 64;
  bool natural_end = false;
  int32_t rounds = 1;
  ServiceLevel level;
  std::filesystem::path json;

  bool starts_servers() const { return !servers.producer.empty(); }
};

// One of the ways to serve that are compared.
struct System {
  std::string codec;
  int32_t level = 0;
  std::string request;  // as set_codec takes it
  LoadRunner* runner = nullptr;
};

// Whom to ask: started here, or there already.
struct Servers {
  std::vector<std::unique_ptr<ServerPair>> pairs;
  std::vector<std::unique_ptr<LoadRunner>> runners;
  std::vector<System> systems;
};

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, what); }

void check_options(const BenchServeOptions& options) {
  check_workload(options.workload);
  if (options.rates.empty() && options.concurrencies.empty()) {
    refuse("give the load: --rates 1,2,4 (requests a second, inf: all at once) or --concurrency 1,8,32");
  }
  if (options.starts_servers() == options.servers.consumer.empty()) {
    refuse("--producer and --consumer go together: both start servers, neither asks the one at --server");
  }
  if (!options.dataset.empty() && !options.text.empty()) refuse("--dataset and --text exclude each other");
  if (!options.text.empty() && !options.starts_servers()) {
    refuse("--text needs the models' tokenizer: give --producer and --consumer, or prompts with --dataset");
  }
  if (!options.dataset.empty() && options.workload.shared_share > 0) {
    refuse("--shared-share is for made-up prompts and --text; a data set's questions share their contexts");
  }
}

// Without --codecs: oracle, raw, and each artifact's codec at the level a server would take.
std::vector<ParetoCodec> systems_to_start(const BenchServeOptions& options) {
  const auto& servers = options.servers;
  std::vector<ParetoCodec> codecs = choose_codecs(options.codecs, servers.artifacts, servers.producer);
  if (!options.codecs.empty()) return codecs;
  std::erase_if(codecs, [](const ParetoCodec& codec) {
    const auto id = codec_from_name(codec.name);
    if (id && needs_artifact(*id)) return codec.level != codec.levels / 2;
    return codec.name != "oracle" && codec.name != "raw";
  });
  return codecs;
}

Servers make_servers(const BenchServeOptions& options, const std::filesystem::path& folder,
                     const std::stop_token& stop) {
  Servers servers;
  if (!options.starts_servers()) {
    servers.runners.push_back(std::make_unique<LoadRunner>(options.client));
    const std::vector<std::string> asked = options.codecs.empty() ? std::vector<std::string>{"auto"} : options.codecs;
    for (const std::string& codec : asked) {
      const nlohmann::ordered_json row = {{"codec", codec}, {"level", 0}};
      servers.systems.push_back({codec_of(row), level_of(row), codec, servers.runners.front().get()});
    }
    return servers;
  }
  const std::vector<ParetoCodec> codecs = systems_to_start(options);
  servers.pairs = start_pairs(options.servers, options.bandwidth_gbps, folder, stop);
  for (const auto& pair : servers.pairs) servers.runners.push_back(std::make_unique<LoadRunner>(pair->client()));
  for (const ParetoCodec& codec : codecs) {
    servers.systems.push_back({codec.name, codec.level, codec.request(), servers.runners[codec.artifact].get()});
  }
  return servers;
}

// Where prompts come from, read once.
class PromptSource {
 public:
  explicit PromptSource(const BenchServeOptions& options) : options_(options) {
    if (!options.text.empty()) {
      tokens_ = tokens_of_file(Tokenizer::from_file(options.servers.consumer / "tokenizer.json"), options.text);
    }
    if (options.dataset.empty()) return;
    for (const Question& question : read_questions(options.dataset, options.dataset_file)) {
      prompts_.push_back(make_prompt(question));
    }
  }

  // Before the first prompt is drawn. Throws Error INVALID_ARGUMENT where the model does not take such prompts.
  void fit(const v1::ModelCard& model) {
    vocabulary_ = static_cast<int32_t>(model.vocabulary_size());
    if (!prompts_.empty()) return;  // their tokens are the server's to count
    const WorkloadOptions& workload = options_.workload;
    const auto longest = std::llround(static_cast<double>(workload.prompt_tokens) * (1 + workload.prompt_spread));
    if (longest + options_.output_tokens <= model.context_length()) return;
    refuse("prompts of up to " + std::to_string(longest) + " tokens and " + std::to_string(options_.output_tokens) +
           " of output exceed the model's context of " + std::to_string(model.context_length()) +
           "; lower --prompt-tokens or --output-tokens");
  }

  std::vector<LoadPrompt> draw(const WorkloadOptions& workload) const {
    if (!prompts_.empty()) return dataset_prompts(workload, prompts_);
    return tokens_.empty() ? synthetic_prompts(workload, vocabulary_) : text_prompts(workload, tokens_);
  }

 private:
  const BenchServeOptions& options_;
  int32_t vocabulary_ = 0;
  std::vector<std::string> prompts_;
  std::vector<TokenId> tokens_;
};

v1::CompleteRequest request_of(const BenchServeOptions& options, const LoadPrompt& prompt, const System& system,
                               const std::string& salt) {
  v1::CompleteRequest request;
  if (prompt.tokens.empty()) {
    request.set_text(prompt.text);
  } else {
    request.mutable_token_ids()->mutable_ids()->Add(prompt.tokens.begin(), prompt.tokens.end());
  }
  request.set_max_tokens(options.output_tokens);
  request.set_temperature(0);
  request.set_ignore_eos(!options.natural_end);
  request.set_cache_salt(salt);
  set_codec(request, system.request);
  return request;
}

std::string name_of(const LoadPoint& point) {
  if (point.closed()) return std::to_string(point.concurrency) + " at once";
  if (std::isinf(point.rate_per_s)) return "burst";
  std::ostringstream text;
  text << point.rate_per_s << "/s";
  return text.str();
}

// All that is measured of one system at one load.
struct Measured {
  std::vector<LoadRecord> records;
  double seconds = 0;
};

class Measurement {
 public:
  Measurement(const BenchServeOptions& options, const PromptSource& source, const std::stop_token& stop)
      : options_(options), source_(source), stop_(stop) {}

  // Connections and first touches; what is refused shows at once.
  void warm_up(const System& system) {
    WorkloadOptions few = options_.workload;
    few.requests = 2;
    const LoadRun run = ask(system, few, {.concurrency = 1}, "warming up " + system.request);
    for (const LoadRecord& record : run.records) {
      if (!record.answered()) refuse("codec " + system.request + ": " + record.error);
    }
  }

  void measure(const System& system, const LoadPoint& point, int32_t round, Measured& measured) {
    WorkloadOptions workload = options_.workload;
    workload.seed += static_cast<uint64_t>(round);
    const std::string title = name_of(point) + ", " + system.request +
                              (options_.rounds > 1 ? ", round " + std::to_string(round + 1) : std::string());
    LoadRun run = ask(system, workload, point, title);
    measured.seconds += run.seconds;
    std::ranges::move(run.records, std::back_inserter(measured.records));
  }

 private:
  LoadRun ask(const System& system, const WorkloadOptions& workload, const LoadPoint& point, const std::string& title) {
    // What one run stored shall help no other.
    const std::string salt = salt_ + std::to_string(runs_++);
    std::vector<v1::CompleteRequest> requests;
    for (const LoadPrompt& prompt : source_.draw(workload))
      requests.push_back(request_of(options_, prompt, system, salt));
    std::vector<double> arrivals;
    if (!point.closed()) arrivals = poisson_arrivals(point.rate_per_s, workload.requests, workload.seed);
    Progress progress(title);
    LoadRun run =
        system.runner->run({.requests = requests,
                            .arrivals = arrivals,
                            .concurrency = point.concurrency,
                            .stop = stop_,
                            .progress = [&progress](const LoadProgress& now) {
                              progress.update(static_cast<double>(now.done) / static_cast<double>(now.of),
                                              std::to_string(now.done) + " done, " + std::to_string(now.under_way) +
                                                  " under way, " + std::to_string(now.failed) + " failed");
                            }});
    progress.finish();
    return run;
  }

  const BenchServeOptions& options_;
  const PromptSource& source_;
  const std::stop_token stop_;
  const std::string salt_ = "serve-" + std::to_string(std::random_device{}()) + "-";
  size_t runs_ = 0;
};

std::string task_of(const BenchServeOptions& options) {
  if (!options.dataset.empty()) return task_name(options.dataset);
  return options.text.empty() ? "random tokens" : task_name(options.text);
}

nlohmann::ordered_json row_of(const BenchServeOptions& options, const LoadPoint& point, const System& system,
                              const LoadSummary& summary) {
  const bool burst = std::isinf(point.rate_per_s);
  nlohmann::ordered_json row = {
      {"codec", system.codec},         {"level", system.level},
      {"task", task_of(options)},      {"load", point.closed() ? "closed" : burst ? "burst" : "poisson"},
      {"request_rate_per_s", nullptr}, {"concurrency", nullptr},
      {"rounds", options.rounds},      {"seed", options.workload.seed},
      {"prompt_tokens", nullptr},      {"max_tokens", options.output_tokens}};
  if (point.closed()) row["concurrency"] = point.concurrency;
  if (!point.closed() && !burst) row["request_rate_per_s"] = point.rate_per_s;
  if (options.dataset.empty()) {
    row["prompt_tokens"] = options.workload.prompt_tokens;
    row["prompt_spread"] = options.workload.prompt_spread;
    row["shared_share"] = options.workload.shared_share;
    row["shared_tokens"] = options.workload.shared_tokens;
    row["shared_prefixes"] = options.workload.shared_prefixes;
  }
  if (options.starts_servers()) row["bandwidth_gbps"] = options.bandwidth_gbps;
  row.update(to_json(summary, options.level));
  return row;
}

std::vector<std::string> cells_of(const BenchServeOptions& options, const LoadPoint& point, const System& system,
                                  const LoadSummary& summary) {
  std::vector<std::string> cells{
      name_of(point),
      system.request,
      std::to_string(summary.requests - summary.failed) + "/" + std::to_string(summary.requests),
      format_fixed(summary.requests_per_s, 2),
      format_fixed(summary.output_tokens_per_s, 1),
      options.level.asked() ? format_fixed(summary.goodput_per_s, 2) : "-",
  };
  for (const Percentiles& values : {summary.ttft_ms, summary.itl_ms, summary.e2e_ms}) {
    for (const double value : {values.p50, values.p90, values.p99}) cells.push_back(format_fixed(value, 1));
  }
  cells.push_back(
      summary.handover_tokens == 0
          ? "-"
          : format_fixed(static_cast<double>(summary.wire_bytes) / static_cast<double>(summary.handover_tokens), 0));
  cells.push_back(summary.predicted == 0 ? "-" : format_percent(summary.prediction_error.p50));
  const bool compared = summary.first_token_predicted > 0;
  cells.push_back(compared ? format_percent(summary.first_token_prediction_error.p50) : "-");
  cells.push_back(compared ? std::to_string(summary.computed_there) : "-");
  return cells;
}

void warn(const System& system, const Measured& measured, const LoadSummary& summary) {
  if (summary.failed > 0) {
    const auto first = std::ranges::find_if(measured.records, [](const auto& record) { return !record.answered(); });
    std::cerr << "scd: " << system.request << ": " << summary.failed << " of " << summary.requests
              << " requests failed, the first with " << first->error << "\n";
  }
  if (summary.fell_back > 0) {
    std::cerr << "scd: " << system.request << ": " << summary.fell_back << " of " << summary.requests
              << " requests fell back to another way than the one asked for\n";
  }
}

std::vector<LoadPoint> points_of(const BenchServeOptions& options) {
  std::vector<LoadPoint> points;
  for (const double rate : options.rates) points.push_back({.rate_per_s = rate});
  for (const int32_t concurrency : options.concurrencies) points.push_back({.concurrency = concurrency});
  return points;
}

void print_heading(const BenchServeOptions& options) {
  std::cout
      << options.workload.requests << " requests a run, " << options.rounds
      << " round(s); times in ms from a request's arrival, as the client sees them. oracle: the decode server "
         "alone.\nPredicted within: median error of the times that were predicted for hand-overs.\n"
         "TTFT within: the same of times from the choice between a hand-over and the decode server alone until the "
         "first token.\n";
  if (options.level.asked()) {
    std::cout << "Goodput: answers a second within";
    if (options.level.ttft_ms > 0) std::cout << "  TTFT " << options.level.ttft_ms << " ms";
    if (options.level.itl_ms > 0) std::cout << "  mean ITL " << options.level.itl_ms << " ms";
    if (options.level.e2e_ms > 0) std::cout << "  E2E " << options.level.e2e_ms << " ms";
    std::cout << "\n";
  }
  std::cout << "\n";
}

void run(const BenchServeOptions& options) {
  check_options(options);
  setenv("OMP_WAIT_POLICY", "PASSIVE", 0);  // servers share this machine's cores: threads that wait must not spin
  const Interrupt interrupt;
  const TemporaryFolder folder("scd-serve");
  PromptSource source(options);
  Servers servers = make_servers(options, folder.path(), interrupt.token());
  source.fit(servers.runners.front()->model());
  Measurement measurement(options, source, interrupt.token());
  print_heading(options);
  for (const System& system : servers.systems) measurement.warm_up(system);
  Report report;
  for (const LoadPoint& point : points_of(options)) {
    std::vector<Measured> measured(servers.systems.size());
    // Systems take turns, so that a drift of the machine's speed meets all of them.
    for (int32_t round = 0; round < options.rounds; ++round) {
      for (size_t i = 0; i < servers.systems.size(); ++i) {
        measurement.measure(servers.systems[i], point, round, measured[i]);
      }
    }
    TextTable table({"load", "codec", "answered", "req/s", "tok/s", "goodput/s", "TTFT p50", "p90", "p99", "ITL p50",
                     "p90", "p99", "E2E p50", "p90", "p99", "bytes/tok", "predicted within", "TTFT within",
                     "computed there"});
    for (size_t i = 0; i < servers.systems.size(); ++i) {
      const LoadSummary summary = summarise(measured[i].records, measured[i].seconds, options.level);
      table.add_row(cells_of(options, point, servers.systems[i], summary));
      report.add_row(row_of(options, point, servers.systems[i], summary));
      warn(servers.systems[i], measured[i], summary);
    }
    table.print(std::cout);
    std::cout << std::endl;
    report.write(options.json);  // after each load: hours of measuring are not lost with the last of them
  }
}

void add_load_options(CLI::App* command, BenchServeOptions& options) {
  command
      ->add_option("--rates", options.rates,
                   "Open loop: requests a second, arriving as a Poisson process; comma-separated; inf: all at once")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check([](const std::string& rate) {
        return std::strtod(rate.c_str(), nullptr) > 0 ? std::string() : rate + " is no rate above 0";
      });
  command
      ->add_option("--concurrency", options.concurrencies, "Closed loop: requests under way at once; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 1 << 16));
  command->add_option("--requests", options.workload.requests, "Of one run")->capture_default_str();
  command
      ->add_option("--rounds", options.rounds,
                   "Runs of each codec at each load, in turns; their requests count together")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--seed", options.workload.seed, "Of prompts and arrivals")->capture_default_str();
  command->add_option("--slo-ttft-ms", options.level.ttft_ms, "Goodput counts answers with a first token within this");
  command->add_option("--slo-itl-ms", options.level.itl_ms, "... and with this time between tokens, in the mean");
  command->add_option("--slo-e2e-ms", options.level.e2e_ms, "... and that are complete within this");
}

void add_prompt_options(CLI::App* command, BenchServeOptions& options) {
  command->add_option("--dataset", options.dataset, "Prompts are the questions of this file, as scd eval reads them");
  command
      ->add_option("--keys", options.dataset_file.keys, "Of key-value retrieval: records kept around the one asked for")
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("--text", options.text, "Cut prompts from this text; else random tokens");
  command->add_option("--prompt-tokens", options.workload.prompt_tokens, "Length of prompts")->capture_default_str();
  command
      ->add_option("--prompt-spread", options.workload.prompt_spread,
                   "Lengths are uniform within so large a share below and above, in [0, 1)")
      ->capture_default_str();
  command->add_option("--output-tokens", options.output_tokens, "Of an answer")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_flag("--natural-end", options.natural_end, "Answers may end before --output-tokens");
  command
      ->add_option("--shared-share", options.workload.shared_share,
                   "Share of the prompts that begin with a shared prefix")
      ->capture_default_str();
  command->add_option("--shared-tokens", options.workload.shared_tokens, "Length of the shared prefixes")
      ->capture_default_str();
  command->add_option("--shared-prefixes", options.workload.shared_prefixes, "How many different ones there are")
      ->capture_default_str();
}

}  // namespace

void add_bench_serve_command(CLI::App& bench) {
  const auto options = std::make_shared<BenchServeOptions>();
  options->servers.cached_tokens = 65536;
  CLI::App* command = bench.add_subcommand(
      "serve",
      "Put a load on a decode server and measure latencies, throughput and goodput. With --producer and --consumer it\n"
      "starts servers of its own and compares, in turns, the decode server alone (oracle), raw hand-off and codes.\n"
      "  scd bench serve --server HOST:50051 --rates 1,2,4 --slo-ttft-ms 500\n"
      "  scd bench serve --producer BASE --consumer BASE --consumer-adapter ADAPTER --artifacts DIR --text FILE \\\n"
      "                  --bandwidth 1 --rates 0.5,1,2,4 --json load.json && scd plot load.json --out FOLDER");
  add_client_options(*command, options->client);
  add_load_options(command, *options);
  add_prompt_options(command, *options);
  command
      ->add_option(
          "--codecs", options->codecs,
          "Ways to serve, comma-separated; rd@2 is one level. Of servers of its own: oracle and raw always, by "
          "default each artifact's codec at its middle level; else auto: as the server decides")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_server_pair_options(*command, options->servers);
  command->add_option("--bandwidth", options->bandwidth_gbps, "Of the emulated link, Gbit/s; 0: not capped")
      ->check(CLI::Range(0.0, 10000.0))
      ->capture_default_str();
  command->add_option("--kv-cache-tokens", options->servers.cached_tokens, "That each of the servers started can hold")
      ->check(CLI::Range(int64_t{256}, int64_t{1} << 28))
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the rows to this file");
  command->callback([options] { run(*options); });
}

}  // namespace scd
