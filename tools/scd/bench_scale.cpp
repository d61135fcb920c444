#include "tools/scd/bench_scale.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/log/progress.h"
#include "common/model/make_model.h"
#include "common/tokenizer/byte_tokenizer.h"
#include "tools/scd/client.h"
#include "tools/scd/interrupt.h"
#include "tools/scd/load_runner.h"
#include "tools/scd/report.h"
#include "tools/scd/server_pair_options.h"
#include "tools/scd/temporary_folder.h"

namespace scd {
namespace {

constexpr int64_t kChunkTokens = 16;    // of the prefill server's code cache; also a page of the decode server's
constexpr int64_t kFillTokens = 1024;   // of a prompt that fills the caches
constexpr int64_t kPromptTokens = 256;  // of one that is measured
constexpr size_t kMeasured = 50;        // requests a row

struct BenchScaleOptions {
  ServerPairOptions servers;
  std::vector<int32_t> sequences{1, 2, 4, 8, 16, 32, 64};
  std::vector<int64_t> chunks{0, 1000, 3000, 10000};
  uint32_t output_tokens = 64;
  std::filesystem::path json;
};

// What a run took of the servers' processors, and what it gave.
struct Cost {
  CpuSeconds cpu;
  LoadSummary summary;
  int64_t output_tokens = 0;
};

class ScaleBench {
 public:
  ScaleBench(const BenchScaleOptions& options, ServerPair& pair, std::stop_token stop)
      : options_(options), pair_(pair), runner_(pair.client()), stop_(std::move(stop)) {
    vocabulary_ = static_cast<int32_t>(runner_.model().vocabulary_size());
  }

  struct Load {
    std::string codec;
    size_t requests = 0;
    int64_t prompt_tokens = 0;
    uint32_t output_tokens = 0;
    int32_t concurrency = 1;
    uint64_t seed = 0;  // the same seed asks the same prompts again
  };

  Cost run(const Load& load, const std::string& title) {
    WorkloadOptions workload;
    workload.requests = load.requests;
    workload.prompt_tokens = load.prompt_tokens;
    workload.seed = load.seed;
    std::vector<v1::CompleteRequest> requests;
    for (const LoadPrompt& prompt : synthetic_prompts(workload, vocabulary_)) {
      v1::CompleteRequest& request = requests.emplace_back();
      request.mutable_token_ids()->mutable_ids()->Add(prompt.tokens.begin(), prompt.tokens.end());
      request.set_max_tokens(load.output_tokens);
      request.set_ignore_eos(true);
      set_codec(request, load.codec);
    }
    Progress progress(title);
    const CpuSeconds before = pair_.cpu_seconds();
    const LoadRun run = runner_.run({.requests = requests,
                                     .arrivals = {},
                                     .concurrency = load.concurrency,
                                     .stop = stop_,
                                     .progress = [&progress](const LoadProgress& now) {
                                       progress.update(static_cast<double>(now.done) / static_cast<double>(now.of), "");
                                     }});
    const CpuSeconds after = pair_.cpu_seconds();
    progress.finish();
    Cost cost{.cpu = {after.prefill - before.prefill, after.decode - before.decode},
              .summary = summarise(run.records, run.seconds, {})};
    for (const LoadRecord& record : run.records) {
      if (!record.answered()) throw Error(ErrorCode::kUnavailable, record.error + "\n" + pair_.last_words());
      cost.output_tokens += record.output_tokens;
    }
    return cost;
  }

  void sequences(Report& report) {
    run({"oracle", 4, kPromptTokens, options_.output_tokens, 2, next_seed_++}, "warming up");
    TextTable table({"sequences", "tok/s", "CPU us/tok", "of one's", "ITL p50 ms"});
    double alone = 0;
    for (const int32_t count : options_.sequences) {
      const size_t requests = std::max<size_t>(8, 4 * static_cast<size_t>(count));
      const Cost cost = run({"oracle", requests, kChunkTokens, options_.output_tokens, count, next_seed_++},
                            std::to_string(count) + " sequences");
      const double per_token = 1e6 * cost.cpu.decode / static_cast<double>(cost.output_tokens);
      if (alone == 0) alone = per_token;
      table.add_row({std::to_string(count), format_fixed(cost.summary.output_tokens_per_s, 0),
                     format_fixed(per_token, 1), format_percent(per_token / alone),
                     format_fixed(cost.summary.itl_ms.p50, 2)});
      report.add_row({{"codec", "oracle"},
                      {"task", "sequences"},
                      {"concurrency", count},
                      {"output_tokens_per_s", cost.summary.output_tokens_per_s},
                      {"cpu_us_per_output_token", per_token},
                      {"itl_p50_ms", cost.summary.itl_ms.p50}});
    }
    std::cout << "Sequences that run at once, on the decode server alone; processor time of its process:\n";
    table.print(std::cout);
    std::cout << std::endl;
  }

  void cached(Report& report) {
    TextTable table({"chunks", "prompts", "prefill CPU us/tok", "decode CPU us/tok", "TTFT p50 ms", "of the first"});
    double first_new = 0, first_known = 0;
    int64_t stored = 0;
    for (const int64_t chunks : options_.chunks) {
      stored += fill(chunks - stored);
      const uint64_t seed = next_seed_++;
      measure_cached(stored, "new", seed, first_new, table, report);
      measure_cached(stored, "seen", seed, first_known, table, report);
      stored += static_cast<int64_t>(kMeasured) * kPromptTokens / kChunkTokens;
    }
    std::cout << "Chunks of " << kChunkTokens << " tokens stored on either side (codes and pages); prompts of "
              << kPromptTokens << " tokens, one at a time, raw:\n";
    table.print(std::cout);
  }

 private:
  // So many more chunks, or a few more; returns how many.
  int64_t fill(int64_t chunks) {
    if (chunks <= 0) return 0;
    const int64_t prompts = (chunks * kChunkTokens + kFillTokens - 1) / kFillTokens;
    run({"raw", static_cast<size_t>(prompts), kFillTokens, 1, 4, next_seed_++},
        "storing " + std::to_string(chunks) + " chunks");
    return prompts * kFillTokens / kChunkTokens;
  }

  void measure_cached(int64_t stored, const std::string& prompts, uint64_t seed, double& first, TextTable& table,
                      Report& report) {
    const Cost cost =
        run({"raw", kMeasured, kPromptTokens, 1, 1, seed}, std::to_string(stored) + " chunks, " + prompts + " prompts");
    const double tokens = static_cast<double>(kMeasured) * static_cast<double>(kPromptTokens);
    const double prefill = 1e6 * cost.cpu.prefill / tokens, decode = 1e6 * cost.cpu.decode / tokens;
    if (first == 0) first = cost.summary.ttft_ms.p50;
    table.add_row({std::to_string(stored), prompts, format_fixed(prefill, 2), format_fixed(decode, 2),
                   format_fixed(cost.summary.ttft_ms.p50, 2), format_percent(cost.summary.ttft_ms.p50 / first)});
    report.add_row({{"codec", "raw"},
                    {"task", "stored chunks, " + prompts + " prompts"},
                    {"chunks", stored},
                    {"prefill_cpu_us_per_prompt_token", prefill},
                    {"decode_cpu_us_per_prompt_token", decode},
                    {"ttft_p50_ms", cost.summary.ttft_ms.p50}});
  }

  const BenchScaleOptions& options_;
  ServerPair& pair_;
  LoadRunner runner_;
  const std::stop_token stop_;
  int32_t vocabulary_ = 0;
  uint64_t next_seed_ = 1;
};

void run(BenchScaleOptions options) {
  setenv("OMP_WAIT_POLICY", "PASSIVE", 0);  // both servers share this machine's cores
  const Interrupt interrupt;
  const TemporaryFolder folder("scd-scale");
  ServerPairOptions& servers = options.servers;
  if (servers.producer.empty() != servers.consumer.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "--producer and --consumer go together; without both a small model is made");
  }
  if (servers.producer.empty()) {
    servers.producer = servers.consumer = folder.path() / "model";
    MakeModelOptions model;
    model.shape = "small";
    model.tokenizer_json = make_byte_tokenizer_json(model_shape_vocab(model.shape));
    make_model(model, servers.consumer);
  }
  const int64_t most = *std::ranges::max_element(options.chunks);
  const int64_t beside = static_cast<int64_t>(options.chunks.size() * kMeasured) * kPromptTokens + 2 * kFillTokens;
  servers.cached_tokens = (most + most / 8) * kChunkTokens + beside;
  servers.prefill_settings.push_back("codec.chunk_tokens=" + std::to_string(kChunkTokens));
  servers.decode_settings.push_back("log.level=warning");
  servers.prefill_settings.push_back("log.level=warning");
  ServerPair pair(servers, {}, 0, folder.path(), interrupt.token());
  Report report;
  ScaleBench bench(options, pair, interrupt.token());
  bench.sequences(report);
  bench.cached(report);
  report.write(options.json);
}

}  // namespace

void add_bench_scale_command(CLI::App& bench) {
  const auto options = std::make_shared<BenchScaleOptions>();
  CLI::App* command = bench.add_subcommand(
      "scale",
      "Processor time a token as the number of sequences and of stored chunks grows: it should stay flat. Starts a\n"
      "pair of its own, by default of a small model, whose own arithmetic hides little.\n"
      "  scd bench scale --json scale.json");
  add_server_pair_options(*command, options->servers);
  command->add_option("--sequences", options->sequences, "That run at once; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--chunks", options->chunks, "Stored before prompts are measured, rising; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--output-tokens", options->output_tokens, "Of an answer")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the rows to this file");
  command->callback([options] { run(*options); });
}

}  // namespace scd
