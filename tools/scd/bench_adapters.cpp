#include "tools/scd/bench_adapters.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/device/open_device.h"
#include "common/model/adapter.h"
#include "common/model/decode_step.h"
#include "kernels/limits.h"
#include "kernels/linear.h"
#include "kernels/sampling.h"
#include "tools/scd/decode_bench_options.h"
#include "tools/scd/precision.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

struct BenchAdaptersOptions : DecodeBenchOptions {
  BenchAdaptersOptions() {
    batches = {8, 32};
    context = 256;
    steps = 8;
    repetitions = 15;
  }
  std::vector<std::string> adapters;
  std::vector<size_t> counts{1, 8};
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

struct StepTime {
  double seconds = 0;
  double cpu_seconds = 0;  // of all threads: what else runs on the machine counts little
};

// A batch that decodes behind contexts of its own, by either model: what they compute does not change the speed.
class Batch {
 public:
  Batch(const BenchAdaptersOptions& options, const Model& model, KvCache& cache, int64_t size) : options_(options) {
    std::vector<TokenId> prompt(static_cast<size_t>(options.context));
    for (size_t i = 0; i < prompt.size(); ++i) {
      prompt[i] = static_cast<TokenId>((i * 37 + 11) % static_cast<size_t>(model.config().vocab));
    }
    for (int64_t i = 0; i < size; ++i) {
      tables_.push_back(cache.pool().make_table());
      std::move(tables_.back().reserve(options.context + options.steps + 1)).value_or_throw();
      const SequenceChunk chunk{&tables_.back(), 0, prompt};
      forward_last_logits(model, cache, std::span(&chunk, 1));
    }
  }

  // Sequence i has adapter i modulo their number; without any it has none.
  StepTime run(DecodeStep& step, std::span<const std::unique_ptr<const Adapter>> adapters, int64_t steps) const {
    const TokenId token = 1;
    std::vector<SequenceChunk> chunks;
    for (size_t i = 0; i < tables_.size(); ++i) {
      const Adapter* adapter = adapters.empty() ? nullptr : adapters[i % adapters.size()].get();
      chunks.push_back({&tables_[i], options_.context, std::span(&token, 1), adapter});
    }
    std::vector<int32_t> ids(tables_.size());
    const std::vector<kernels::SamplingOptions> greedy(ids.size());
    const std::vector<double> uniforms(ids.size());
    const std::clock_t cpu_begin = std::clock();
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < steps; ++i) {
      for (SequenceChunk& chunk : chunks) chunk.first_position = options_.context + i;
      kernels::sample_rows(step.run(chunks), greedy, uniforms, ids);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const double cpu_seconds = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
    return {seconds / static_cast<double>(steps), cpu_seconds / static_cast<double>(steps)};
  }

 private:
  const BenchAdaptersOptions& options_;
  std::vector<PageTable> tables_;
};

class AdapterBench {
 public:
  AdapterBench(const BenchAdaptersOptions& options, const Model& merged, const Model& base)
      : options_(options),
        merged_(merged),
        base_(base),
        cache_(base.config().kv_shape(base.precision()), pages_needed(options), base.device()),
        merged_step_(merged, cache_, largest_batch(options)),
        base_step_(base, cache_, largest_batch(options)) {
    for (size_t i = 0; i < *std::ranges::max_element(options.counts); ++i) {
      const std::string& directory = options.adapters[i % options.adapters.size()];
      adapters_.push_back(std::make_unique<const Adapter>(base, directory));
    }
  }

  // The merged model and each number of adapters take turns, so that what else runs on the machine meets all alike.
  void measure(int64_t size) {
    const Batch batch(options_, base_, cache_, size);
    std::vector<StepTime> merged;
    std::vector<std::vector<StepTime>> beside(options_.counts.size());
    for (int repetition = -1; repetition < options_.repetitions; ++repetition) {  // the first warms up
      const StepTime before = batch.run(merged_step_, {}, options_.steps);
      for (size_t i = 0; i < beside.size(); ++i) {
        const StepTime time = batch.run(base_step_, std::span(adapters_).first(options_.counts[i]), options_.steps);
        if (repetition >= 0) beside[i].push_back(time);
      }
      if (repetition >= 0) merged.push_back(before);
    }
    for (size_t i = 0; i < beside.size(); ++i) report(size, options_.counts[i], merged, beside[i]);
  }

  const TextTable& table() const { return table_; }
  const Report& report() const { return report_; }

 private:
  static int64_t largest_batch(const BenchAdaptersOptions& options) {
    return *std::ranges::max_element(options.batches);
  }
  static int32_t pages_needed(const BenchAdaptersOptions& options) {
    return static_cast<int32_t>(largest_batch(options) * ((options.context + options.steps + 1) / kPageTokens + 1));
  }

  using Times = std::vector<StepTime>;

  static double median_of(const Times& times, double StepTime::*part) {
    std::vector<double> values;
    for (const StepTime& time : times) values.push_back(time.*part);
    return median(std::move(values));
  }
  // 1 - the speed that is left; the median over turns, whose two sides are neighbours in time.
  static double cost(const Times& merged, const Times& beside, double StepTime::*part) {
    std::vector<double> ratios;
    for (size_t i = 0; i < merged.size(); ++i) ratios.push_back(merged[i].*part / (beside[i].*part));
    return 1 - median(std::move(ratios));
  }

  void report(int64_t size, size_t count, const Times& merged, const Times& beside) {
    const double merged_seconds = median_of(merged, &StepTime::seconds),
                 seconds = median_of(beside, &StepTime::seconds);
    const double share = cost(merged, beside, &StepTime::seconds);
    const double cpu_share = cost(merged, beside, &StepTime::cpu_seconds);
    size_t bytes = 0;
    for (size_t i = 0; i < count; ++i) bytes += adapters_[i]->bytes();
    report_.add_row({{"task", "adapters"},
                     {"phase", "decode"},
                     {"batch", size},
                     {"adapters", count},
                     {"context", options_.context},
                     {"adapter_bytes", bytes},
                     {"weight_bytes", base_.weight_bytes()},
                     {"merged_step_ms", merged_seconds * 1e3},
                     {"step_ms", seconds * 1e3},
                     {"merged_tokens_per_s", static_cast<double>(size) / merged_seconds},
                     {"tokens_per_s", static_cast<double>(size) / seconds},
                     {"merged_cpu_ms", median_of(merged, &StepTime::cpu_seconds) * 1e3},
                     {"cpu_ms", median_of(beside, &StepTime::cpu_seconds) * 1e3},
                     {"throughput_cost_share", share},
                     {"cpu_cost_share", cpu_share}});
    table_.add_row({std::to_string(size), std::to_string(count), format_fixed(static_cast<double>(bytes) / 1048576, 1),
                    format_fixed(merged_seconds * 1e3, 2), format_fixed(seconds * 1e3, 2),
                    format_fixed(static_cast<double>(size) / merged_seconds, 1),
                    format_fixed(static_cast<double>(size) / seconds, 1), format_percent(share),
                    format_percent(cpu_share)});
  }

  const BenchAdaptersOptions& options_;
  const Model& merged_;
  const Model& base_;
  KvCache cache_;
  DecodeStep merged_step_, base_step_;
  std::vector<std::unique_ptr<const Adapter>> adapters_;
  Report report_;
  TextTable table_{{"batch", "adapters", "MiB of them", "merged ms", "beside ms", "merged tokens/s", "beside tokens/s",
                    "throughput lost", "by CPU time"}};
};

void run(const BenchAdaptersOptions& options) {
  if (options.threads > 0) omp_set_num_threads(options.threads);
  const kernels::Device device = open_device(options.device);
  LoadOptions load{
      .directory = options.model, .precision = parse_precision(options.precision, device), .device = device};
  const Model base = Model::load(load);
  if (options.context + options.steps + 1 > base.config().max_positions) {
    throw Error(ErrorCode::kOutOfRange, "--context and --steps ask for more than the model's context of " +
                                            std::to_string(base.config().max_positions) + " tokens");
  }
  load.adapter = options.adapters.front();
  const Model merged = Model::load(load);
  std::cerr << options.model << ": " << (base.weight_bytes() >> 20) << " MiB packed; "
            << kernels::linear_backend(device) << ", " << kernels::kernel_threads() << " threads\n";
  AdapterBench bench(options, merged, base);
  for (const int64_t batch : options.batches) {
    std::cerr << "decode at batch " << batch << " ..." << std::endl;
    bench.measure(batch);
  }
  bench.table().print(std::cout);
  std::cout << "Medians of steps that took turns; throughput lost: the median over turns, against one model with the "
               "adapter in its weights,\nby the clock and by the CPU time of all threads (not of a GPU).\n";
  bench.report().write(options.json);
}

}  // namespace

void add_bench_adapters_command(CLI::App& bench) {
  auto options = std::make_shared<BenchAdaptersOptions>();  // the callback outlives this call
  CLI::App* command = bench.add_subcommand(
      "adapters",
      "Decode steps of a batch whose sequences have adapters of their own beside the base's weights, against one model "
      "with\nan adapter in its weights; both take turns.");
  add_decode_bench_options(*command, *options, "Decode steps of one turn", "Turns of each")->required();
  command->add_option("--adapter", options->adapters, "PEFT LoRA adapter folders, repeated in turn; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->required();
  command
      ->add_option("--adapters", options->counts, "Adapters in a batch, each with memory of its own; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(size_t{1}, size_t{1024}))
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace scd
