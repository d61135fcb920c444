#include "tools/scd/bench_engine.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/device/open_device.h"
#include "common/model/decode_step.h"
#include "common/model/forward.h"
#include "common/model/make_model.h"
#include "kernels/limits.h"
#include "kernels/linear.h"
#include "kernels/sampled_rows.h"
#include "tools/scd/decode_bench_options.h"
#include "tools/scd/precision.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

struct BenchEngineOptions : DecodeBenchOptions {
  BenchEngineOptions() {
    batches = {1, 4, 8};
    context = 512;
    steps = 16;
    repetitions = 3;
  }
  std::string shape;
  std::string adapter;
  std::vector<int64_t> prefill{512, 1024, 2048};
};

double seconds_of(const auto& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The linear layers of one model layer as GEMMs over `rows` tokens.
std::vector<kernels::GemmShape> gemm_shapes(const Model& model, int64_t rows) {
  const LayerWeights& layer = model.layer(0);
  std::vector<kernels::GemmShape> shapes;
  for (const auto* linear : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) {
    shapes.push_back({rows, linear->out_features(), linear->in_features()});
  }
  return shapes;
}

// FLOPs of the linear layers alone: attention, norms and the rest count as time only.
double linear_flops(const Model& model, int64_t rows) {
  double flops = kernels::GemmShape{1, model.lm_head().out_features(), model.lm_head().in_features()}.flops();
  for (const auto& shape : gemm_shapes(model, rows)) flops += model.config().layers * shape.flops();
  return flops;
}

// Scores and values of causal attention: half of all pairs of tokens.
double attention_flops(const Model& model, int64_t tokens) {
  const ModelConfig& config = model.config();
  const double pairs = 0.5 * static_cast<double>(tokens) * static_cast<double>(tokens);
  return 4.0 * pairs * static_cast<double>(config.layers) * static_cast<double>(config.query_heads) *
         static_cast<double>(config.head_dim);
}

class EngineBench {
 public:
  EngineBench(const BenchEngineOptions& options, const Model& model)
      : options_(options),
        model_(model),
        threads_(kernels::kernel_threads()),
        on_gpu_(model.device() == kernels::Device::kGpu),
        cache_(model.config().kv_shape(model.precision()), pages_needed(options), model.device()),
        step_(model, cache_, *std::ranges::max_element(options.batches)) {}

  void measure_prefill(int64_t tokens) {
    std::vector<PageTable> tables;
    const auto ids = make_ids(tokens);
    tables.push_back(reserved(tokens));
    const SequenceChunk chunk{&tables[0], 0, ids};
    const auto shapes = gemm_shapes(model_, tokens);
    // Before and after: what else runs on the machine must not favour either side.
    double limit = gemm_limit(shapes);
    prefill(chunk);  // warm-up
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < options_.repetitions; ++i) {
      best = std::min(best, seconds_of([&] { prefill(chunk); }));
      limit = std::max(limit, gemm_limit(shapes));
    }
    const double rate = linear_flops(model_, tokens) / best;
    const double all_rate = rate + attention_flops(model_, tokens) / best;
    report_.add_row({{"task", "engine"},
                     {"phase", "prefill"},
                     {"tokens", tokens},
                     {"batch", 1},
                     {"total_ms", best * 1e3},
                     {"tokens_per_s", static_cast<double>(tokens) / best},
                     {"tflop_per_s", rate / 1e12},
                     {"tflop_per_s_with_attention", all_rate / 1e12},
                     {"gemm_tflop_per_s", limit / 1e12},
                     {"gemm_share", rate / limit}});
    table_.add_row({"prefill " + std::to_string(tokens), format_fixed(best * 1e3, 1),
                    format_fixed(static_cast<double>(tokens) / best, 1), format_fixed(rate / 1e12, 3) + " TFLOP/s",
                    format_fixed(limit / 1e12, 3) + " TFLOP/s", format_percent(rate / limit)});
  }

  void measure_decode(int64_t batch) {
    std::vector<PageTable> tables;
    const auto prompt = make_ids(options_.context);
    for (int64_t i = 0; i < batch; ++i) {
      tables.push_back(reserved(options_.context + options_.steps + 1));
      const SequenceChunk chunk{&tables.back(), 0, prompt};
      forward_last_logits(model_, cache_, std::span(&chunk, 1));
    }
    const size_t bytes = step_bytes(batch);
    double limit = memory_limit(bytes);
    decode_steps(tables, 3);  // warm-up, and the recording
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < options_.repetitions; ++i) {
      best = std::min(best, decode_steps(tables, options_.steps));
      limit = std::max(limit, memory_limit(bytes));
    }
    const double rate = static_cast<double>(bytes) / best;
    report_.add_row({{"task", "engine"},
                     {"phase", "decode"},
                     {"tokens", options_.context},
                     {"batch", batch},
                     {"total_ms", best * 1e3},
                     {"tokens_per_s", static_cast<double>(batch) / best},
                     {"read_gbyte_per_s", rate / 1e9},
                     {"memory_gbyte_per_s", limit / 1e9},
                     {"read_share", rate / limit}});
    table_.add_row({"decode, batch " + std::to_string(batch), format_fixed(best * 1e3, 1),
                    format_fixed(static_cast<double>(batch) / best, 1), format_fixed(rate / 1e9, 2) + " GB/s",
                    format_fixed(limit / 1e9, 2) + " GB/s", format_percent(rate / limit)});
  }

  const TextTable& table() const { return table_; }
  const Report& report() const { return report_; }

 private:
  static int32_t pages_needed(const BenchEngineOptions& options) {
    int64_t pages = 1;
    for (const int64_t tokens : options.prefill) pages = std::max(pages, tokens / kPageTokens + 1);
    for (const int64_t batch : options.batches) {
      pages = std::max(pages, batch * ((options.context + options.steps + 1) / kPageTokens + 1));
    }
    return static_cast<int32_t>(pages);
  }

  double gemm_limit(std::span<const kernels::GemmShape> shapes) const {
    if (!on_gpu_) return kernels::measure_cpu_gemm_rate(shapes, threads_, 1);
    constexpr kernels::GemmShape kPeak{8192, 8192, 8192};
    return kernels::measure_gpu_gemm_rate(std::span(&kPeak, 1), 1);
  }

  double memory_limit(size_t bytes) const {
    return on_gpu_ ? kernels::measure_gpu_copy_bandwidth(std::min(bytes, kLargestCopy), 1)
                   : kernels::measure_read_bandwidth(bytes, threads_, 1);
  }

  // Read by a step of the batch: the weights, and on a GPU, where it shows, the cache.
  size_t step_bytes(int64_t batch) const {
    const size_t weights = static_cast<size_t>(model_.parameters()) * kernels::size_of(model_.precision());
    const KvShape& shape = cache_.shape();
    const auto token = static_cast<size_t>(2 * shape.layers * shape.kv_width()) * kernels::size_of(shape.dtype);
    return weights + (on_gpu_ ? token * static_cast<size_t>(batch * (options_.context + options_.steps / 2)) : 0);
  }

  // All layers and the logits of the last token.
  void prefill(const SequenceChunk& chunk) {
    ForwardPass pass(model_, cache_, std::span(&chunk, 1));
    while (pass.next_layer() < model_.config().layers) pass.run_layer();
    const int64_t last = pass.rows() - 1;
    pass.logits(std::span(&last, 1));
  }

  PageTable reserved(int64_t tokens) {
    PageTable table = cache_.pool().make_table();
    std::move(table.reserve(tokens)).value_or_throw();
    return table;
  }

  std::vector<TokenId> make_ids(int64_t count) const {
    std::vector<TokenId> ids(static_cast<size_t>(count));
    uint64_t state = 1;
    for (TokenId& id : ids) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      id = static_cast<TokenId>((state >> 33) % static_cast<uint64_t>(model_.config().vocab));
    }
    return ids;
  }

  // Seconds of one step of the whole batch, averaged; every run starts over at the end of the context. As in a decode
  // server, each step is queued before the tokens of the one before are known.
  double decode_steps(const std::vector<PageTable>& tables, int64_t steps) {
    const TokenId token = 1;
    std::vector<SequenceChunk> batch;
    const std::vector<kernels::SamplingOptions> greedy(tables.size());
    const std::vector<double> uniforms(tables.size());
    for (const PageTable& table : tables) {
      batch.push_back({&table, options_.context, std::span(&token, 1)});
    }
    const double seconds = seconds_of([&] {
      for (int64_t step = 0; step < steps; ++step) {
        for (SequenceChunk& chunk : batch) chunk.first_position = options_.context + step;
        const kernels::SampledRows& before = sampled_[static_cast<size_t>(step % 2)];
        kernels::SampledRows& after = sampled_[static_cast<size_t>((step + 1) % 2)];
        after.queue(step_.run(batch, step == 0 ? nullptr : &before), greedy, uniforms);
        if (step > 0) before.ids();
      }
      sampled_[static_cast<size_t>(steps % 2)].ids();
    });
    return seconds / static_cast<double>(steps);
  }

  const BenchEngineOptions& options_;
  const Model& model_;
  static constexpr size_t kLargestCopy = size_t{4} << 30;

  int threads_;
  bool on_gpu_;
  KvCache cache_;
  DecodeStep step_;
  std::array<kernels::SampledRows, 2> sampled_;  // of steps, in turns
  Report report_;
  TextTable table_{{"what", "ms", "tokens/s", "reached", "limit here", "share"}};
};

Model model_of(const BenchEngineOptions& options, kernels::Device device) {
  const kernels::DType precision = parse_precision(options.precision, device);
  if (!options.shape.empty()) return Model::made_up(model_shape_config(options.shape), precision, device);
  if (options.model.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "no model: name a checkpoint folder with --model, or a --shape");
  }
  LoadOptions load{.directory = options.model, .precision = precision, .device = device};
  if (!options.adapter.empty()) load.adapter = options.adapter;
  return Model::load(load);
}

void run(const BenchEngineOptions& options) {
  if (options.threads > 0) omp_set_num_threads(options.threads);
  const kernels::Device device = open_device(options.device);
  std::unique_ptr<const Model> model;
  const double load_seconds = seconds_of([&] { model = std::make_unique<const Model>(model_of(options, device)); });
  const int64_t longest = std::max(*std::ranges::max_element(options.prefill), options.context + options.steps + 1);
  if (longest > model->config().max_positions) {
    throw Error(ErrorCode::kOutOfRange, std::to_string(longest) + " tokens asked for; the model's context holds " +
                                            std::to_string(model->config().max_positions));
  }
  std::cerr << (options.shape.empty() ? options.model : options.shape) << ": "
            << format_fixed(static_cast<double>(model->parameters()) / 1e6, 1) << " M parameters a token, "
            << (model->weight_bytes() >> 20) << " MiB packed in " << format_fixed(load_seconds, 1) << " s; "
            << kernels::linear_backend(device) << ", " << kernels::kernel_threads() << " threads\n";
  EngineBench bench(options, *model);
  for (const int64_t tokens : options.prefill) {
    std::cerr << "prefill of " << tokens << " tokens ..." << std::endl;
    bench.measure_prefill(tokens);
  }
  for (const int64_t batch : options.batches) {
    std::cerr << "decode at batch " << batch << " ..." << std::endl;
    bench.measure_decode(batch);
  }
  bench.table().print(std::cout);
  std::cout << (device == kernels::Device::kGpu
                    ? "limits: prefill against cuBLASLt's BF16 GEMM of 8192 x 8192 x 8192 "
                      "(linear layers count, attention is time\n"
                      "only), decode against a copy within the GPU's memory (weights and "
                      "cache read; greedy ids to the host).\n"
                    : "limits: prefill against a GEMM over the same shapes (" + kernels::cpu_gemm_name() +
                          "), decode against a plain read of as many bytes\n"
                          "as the weights take; both on the same threads in this run.\n")
            << "ms: a whole prefill, one step of the batch.\n";
  bench.report().write(options.json);
}

}  // namespace

void add_bench_engine_command(CLI::App& bench) {
  auto options = std::make_shared<BenchEngineOptions>();  // the callback outlives this call
  CLI::App* command = bench.add_subcommand(
      "engine",
      "Prefill and decode speed of a model, each as a share of what this machine can do: the GEMM rate of its "
      "library\n"
      "(of a GPU cuBLASLt's) and the memory's bandwidth, measured in the same run. --shape needs no checkpoint.");
  CLI::Option* const model =
      add_decode_bench_options(*command, *options, "Decode steps of one measurement", "The best of so many counts");
  CLI::Option* const adapter =
      command->add_option("--adapter", options->adapter, "PEFT LoRA adapter folder, merged while loading");
  command
      ->add_option("--shape", options->shape,
                   "Instead of a model: of known models, with random weights made on the device")
      ->check(CLI::IsMember(model_shapes()))
      ->excludes(model)
      ->excludes(adapter);
  command->add_option("--prefill", options->prefill, "Prompt lengths, tokens; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace scd
