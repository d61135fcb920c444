#include "tools/scd/bench_kernels.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/device/open_device.h"
#include "common/model/model_shapes.h"
#include "kernels/attention.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/limits.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "tools/scd/codec_bench_on_device.h"
#include "tools/scd/device_limits.h"
#include "tools/scd/filled_matrix.h"
#include "tools/scd/kernels_report.h"
#include "tools/scd/layer_bench.h"
#include "tools/scd/paged_rows.h"
#include "tools/scd/report.h"
#include "tools/scd/torch_times.h"

namespace scd {
namespace {

using kernels::Device;
using kernels::DType;
using kernels::Matrix;

struct BenchKernelsOptions {
  std::string device = "cpu";
  std::string shape = "llama-3.1-8b";
  std::string json;
  std::string torch = "auto";
  int64_t tokens = 8192;
  int64_t context = 2048;
  std::vector<int64_t> batches{1, 8, 16, 64};
  int32_t components = 200;
  int repetitions = 3;
};

class KernelsBench {
 public:
  KernelsBench(const BenchKernelsOptions& options, const ModelShape& shape, Device device)
      : options_(options), shape_(shape), device_(device) {
    precision_ = kernels::native_precision(device);
    limits_ = measure_limits(device);
  }

  void linear_layers() {
    const int64_t widths = int64_t{shape_.query_heads + 2 * shape_.kv_heads} * shape_.head_dim;
    const int64_t query = int64_t{shape_.query_heads} * shape_.head_dim;
    struct Layer {
      const char* name;
      int64_t in, out;
      DType y;
      bool accumulate;
    };
    const DType gate_up = device_ == Device::kGpu ? precision_ : DType::kF32;
    const std::vector<Layer> layers{{"qkv", shape_.hidden, widths, DType::kF32, false},
                                    {"output", query, shape_.hidden, DType::kF32, true},
                                    {"gate_up", shape_.hidden, 2 * shape_.intermediate, gate_up, false},
                                    {"down", shape_.intermediate, shape_.hidden, DType::kF32, true}};
    std::vector<int64_t> rows{options_.tokens};
    rows.insert(rows.end(), options_.batches.begin(), options_.batches.end());
    for (const Layer& layer : layers) {
      const size_t bytes = static_cast<size_t>(layer.in * layer.out) * kernels::size_of(precision_);
      // Enough copies that no cache holds them all.
      std::vector<kernels::PackedLinear> copies;
      const size_t wanted = 1 + (size_t{256} << 20) / bytes;
      const FilledMatrix weight(device_, layer.out, layer.in, precision_);
      for (size_t i = 0; i < wanted; ++i) copies.emplace_back(*weight, std::span<const float>{}, precision_, device_);
      for (const int64_t count : rows) {
        const FilledMatrix x(device_, count, layer.in, precision_, 2), y(device_, count, layer.out, layer.y, 3);
        size_t turn = 0;
        const double seconds = best_seconds([&] { copies[turn++ % copies.size()].forward(*x, *y, layer.accumulate); });
        const std::string name = std::string("linear ") + layer.name + ", " + std::to_string(count) + " rows";
        const auto products = 2.0 * static_cast<double>(count) * static_cast<double>(layer.in * layer.out);
        if (count == options_.tokens) {
          add_flops(name, seconds, products);
        } else {
          add_bytes(name, seconds, static_cast<double>(bytes));
        }
      }
    }
  }

  void attention() {
    const int64_t width = int64_t{shape_.kv_heads} * shape_.head_dim;
    const auto measure = [&](const RowsOfSequences& rows) {
      const PagedRows paged(shape_, device_, precision_, rows);
      const int64_t columns = int64_t{shape_.query_heads} * shape_.head_dim;
      const FilledMatrix queries(device_, rows.all(), columns, DType::kF32, 6);
      const FilledMatrix output(device_, rows.all(), columns, precision_, 7);
      const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
      return best_seconds([&] {
        kernels::paged_attention({.queries = *queries,
                                  .output = *output,
                                  .kv = paged.kv(),
                                  .sequences = paged.batch().sequences(),
                                  .query_heads = shape_.query_heads,
                                  .scale = scale});
      });
    };
    const auto tokens = static_cast<double>(options_.tokens);
    const double flops = 2.0 * tokens * tokens * shape_.query_heads * shape_.head_dim;  // causal: half of all pairs
    add_flops("attention of " + std::to_string(options_.tokens) + " tokens", measure({.of_sequence = options_.tokens}),
              flops);
    for (const int64_t batch : options_.batches) {
      const auto bytes =
          static_cast<double>(2 * batch * options_.context * width) * static_cast<double>(kernels::size_of(precision_));
      add_bytes("attention, decoding, batch " + std::to_string(batch),
                measure({.sequences = batch, .first_position = options_.context - 1}), bytes);
    }
  }

  // The ops below in the order of a forward pass. Linear layers alone are counted, as scd bench engine does.
  void layer() {
    const LayerBench layer(shape_, device_, precision_, rope_table());
    const auto seconds_of = [&](const std::function<void()>& pass) { return best_seconds(pass); };
    const auto weights = static_cast<double>(layer.weights());
    add_flops("decoder layer, prefill of " + std::to_string(options_.tokens),
              layer.measure({.of_sequence = options_.tokens}, seconds_of),
              2.0 * static_cast<double>(options_.tokens) * weights);
    const auto size = static_cast<double>(kernels::size_of(precision_));
    const auto cached = static_cast<double>(options_.context * 2 * shape_.kv_heads * shape_.head_dim);
    for (const int64_t batch : options_.batches) {
      add_bytes("decoder layer, decoding batch " + std::to_string(batch) + " at " + std::to_string(options_.context),
                layer.measure({.sequences = batch, .first_position = options_.context}, seconds_of),
                size * (weights + static_cast<double>(batch) * cached));
    }
  }

  // Of logits that differ as little as these, each token may be drawn at a temperature of one, few at a low one.
  void sampling() {
    struct Kind {
      const char* name;
      kernels::SamplingOptions options;
    };
    const Kind kinds[] = {{"greedy", {}},
                          {"temperature 1", {.temperature = 1.0f}},
                          {"top_p 0.9 of few", {.temperature = 0.25f, .top_p = 0.9f}},
                          {"top_k 50, top_p 0.9 of few", {.temperature = 0.25f, .top_k = 50, .top_p = 0.9f}},
                          {"top_p 0.9 of many", {.temperature = 1.0f, .top_p = 0.9f}}};
    for (const int64_t batch : std::set{options_.batches.front(), options_.batches.back()}) {
      const FilledMatrix logits(device_, batch, shape_.vocab, DType::kF32, 8);
      const auto rows = static_cast<size_t>(batch);
      std::vector<int32_t> ids(rows);
      const std::vector<double> uniforms(rows, 0.5);
      for (const Kind& kind : kinds) {
        const std::vector<kernels::SamplingOptions> options(rows, kind.options);
        const double seconds = best_seconds([&] { kernels::sample_rows(*logits, options, uniforms, ids); });
        add_bytes(std::string("sampling, ") + kind.name + ", batch " + std::to_string(batch), seconds,
                  static_cast<double>(batch * shape_.vocab) * 4.0);
      }
    }
  }

  void memory_bound() {
    const int64_t rows = options_.tokens;
    const auto size = static_cast<double>(kernels::size_of(precision_));
    const auto elements = static_cast<double>(rows) * shape_.hidden;
    {
      const FilledMatrix residual(device_, rows, shape_.hidden, DType::kF32),
          normed(device_, rows, shape_.hidden, precision_);
      const std::vector<float> ones(static_cast<size_t>(shape_.hidden), 1.0f);
      const kernels::DeviceVector weight(ones, device_);
      add_bytes("rms_norm", best_seconds([&] { kernels::rms_norm(*residual, weight, 1e-5f, *normed); }),
                elements * (4.0 + size));
    }
    {
      const DType in = device_ == Device::kGpu ? precision_ : DType::kF32;
      const FilledMatrix gate_up(device_, rows, 2 * shape_.intermediate, in),
          out(device_, rows, shape_.intermediate, precision_);
      const auto outputs = static_cast<double>(rows) * shape_.intermediate;
      add_bytes("silu_mul", best_seconds([&] { kernels::silu_mul(*gate_up, *out); }),
                outputs * (2.0 * static_cast<double>(kernels::size_of(in)) + size));
    }
    {
      const FilledMatrix embeddings(device_, shape_.vocab, shape_.hidden, precision_),
          embedded(device_, rows, shape_.hidden, DType::kF32);
      std::vector<int32_t> ids(static_cast<size_t>(rows));
      for (size_t i = 0; i < ids.size(); ++i) {
        ids[i] = static_cast<int32_t>(i * 7919 % static_cast<size_t>(shape_.vocab));
      }
      add_bytes("embedding", best_seconds([&] { kernels::embedding(*embeddings, ids, *embedded); }),
                elements * (4.0 + size));
    }
  }

  void pages() {
    const int64_t rows = options_.tokens;
    const auto size = static_cast<double>(kernels::size_of(precision_));
    const PagedRows paged(shape_, device_, precision_, {.of_sequence = rows});
    const kernels::RaggedBatch& batch = paged.batch();
    const int64_t width = int64_t{shape_.kv_heads} * shape_.head_dim;
    const int64_t columns = int64_t{shape_.query_heads + shape_.kv_heads} * shape_.head_dim;
    const kernels::RopeTable rope = rope_table();
    {
      const FilledMatrix x(device_, rows, columns, DType::kF32);
      add_bytes("rope", best_seconds([&] {
                  kernels::rope(*x, shape_.head_dim, batch.positions(), rope, kernels::RopeDirection::kRotate);
                }),
                static_cast<double>(rows * columns) * 8.0);
    }
    const FilledMatrix keys(device_, rows, width, DType::kF32), values(device_, rows, width, DType::kF32);
    add_bytes("write_kv", best_seconds([&] { kernels::write_kv(paged.kv(), batch.sequences(), *keys, *values); }),
              2.0 * static_cast<double>(rows * width) * (4.0 + size));
    const int64_t query = int64_t{shape_.query_heads} * shape_.head_dim;
    const FilledMatrix qkv(device_, rows, query + 2 * width, DType::kF32);
    add_bytes("rope_write_kv", best_seconds([&] {
                kernels::rope_write_kv(paged.kv(), batch.sequences(), batch.positions(), rope, *qkv);
              }),
              static_cast<double>(rows) *
                  (static_cast<double>(query) * 8.0 + 2.0 * static_cast<double>(width) * (4.0 + size)));
  }

  // Codec rd over a prompt whose batches are of so many tokens; times are of 1,024 of them.
  void codec(int64_t batch_tokens) {
    const CodecModel model{shape_.layers, shape_.kv_heads, shape_.head_dim, shape_.hidden, rope_table()};
    CodecBenchOnDevice bench(
        CodecBenchMaps::grouped(model, options_.components),
        {.tokens = options_.tokens, .batch_tokens = std::min(batch_tokens, options_.tokens), .chunk_tokens = 128});
    const CodecBenchTimes times = bench.measure(0, [&](const auto& action) { return best_seconds(action); });
    const double share = 1024.0 / static_cast<double>(options_.tokens);
    const std::string of = ", 1,024 of " + std::to_string(options_.tokens) + " tokens";
    add_flops("rd: pages to payloads" + of + " in batches of " + std::to_string(batch_tokens),
              share * times.encode_seconds, share * times.encode_flops);
    add_flops("rd: of it, pages to codes", share * times.codes_seconds, share * times.encode_flops);
    add_bytes("rd: of it, codes to payloads", share * times.coding_seconds, share * times.coding_bytes());
    add_flops("rd: payloads to pages" + of, share * times.rebuild_seconds, share * times.rebuild_flops);
    add_bytes("rd: of it, payloads to codes", share * times.reading_seconds, share * times.reading_bytes());
    add_flops("rd: of it, codes to pages", share * times.products_seconds, share * times.rebuild_flops);
    std::cerr << "payloads of " << format_fixed(times.payload_bytes / static_cast<double>(options_.tokens), 0)
              << " bytes a token" << std::endl;
  }

  // PyTorch's times of the ops above that it has, in a process of its own.
  void torch() {
    std::cerr << "torch, where python3 has it, for a minute or two";
    if (device_ == Device::kGpu) {
      std::cerr << ", beside " << (kernels::gpu_held_bytes() >> 20) << " MiB of the GPU held";
    }
    std::cerr << " ..." << std::endl;
    torch_ = torch_times({{"device", options_.device},
                          {"dtype", precision_ == DType::kBF16 ? "bfloat16" : "float32"},
                          {"threads", kernels::kernel_threads()},
                          {"tokens", options_.tokens},
                          {"context", options_.context},
                          {"batches", options_.batches},
                          {"hidden", shape_.hidden},
                          {"heads", shape_.query_heads},
                          {"kv_heads", shape_.kv_heads},
                          {"head_dim", shape_.head_dim},
                          {"inner", shape_.intermediate},
                          {"repetitions", options_.repetitions}});
  }

  void write() {
    Report report;
    for (const nlohmann::ordered_json& measured : kernels_rows(ops_, torch_)) {
      nlohmann::ordered_json row = {{"task", "kernels"}, {"device", options_.device}, {"shape", options_.shape}};
      row.update(measured);
      report.add_row(row);
    }
    report.write(options_.json);
  }

  void print() {
    kernels_table(ops_, torch_).print(std::cout);
    std::cout << "limits, measured in this run: a GEMM (" << limits_.gemm << ") "
              << format_fixed(limits_.gemm_flop_per_s / 1e12, 1) << " TFLOP/s; memory "
              << format_fixed(limits_.memory_byte_per_s / 1e9, 0) << " GB/s "
              << (device_ == Device::kGpu ? "(a copy, bytes read and written)" : "(a plain read)") << ".\n";
    if (!torch_.rows.empty()) {
      std::cout << "torch " << torch_.version
                << ", the same shapes: its soonest kernel, others in brackets (us);\n"
                   "ops of a few us are called one by one from Python there, and take as long as that takes.\n";
    }
    if (!torch_.problem.empty()) {
      std::cout << (torch_.rows.empty() ? "no times of torch: " : "not all times of torch: ") << torch_.problem << "\n";
    }
    write();
  }

 private:
  kernels::RopeTable rope_table() const {
    kernels::RopeTable rope;
    for (int32_t i = 0; i < shape_.head_dim / 2; ++i) {
      rope.inverse_frequencies.push_back(static_cast<float>(std::pow(5e5, -2.0 * i / shape_.head_dim)));
    }
    return rope;
  }

  double best_seconds(const std::function<void()>& action) const {
    return scd::best_seconds(device_, options_.repetitions, action);
  }

  void add_flops(const std::string& name, double seconds, double flops) {
    add(name, seconds, flops / seconds / 1e12, "tflop_per_s", limits_.gemm_flop_per_s / 1e12);
  }
  void add_bytes(const std::string& name, double seconds, double bytes) {
    add(name, seconds, bytes / seconds / 1e9, "gbyte_per_s", limits_.memory_byte_per_s / 1e9);
  }
  void add(const std::string& name, double seconds, double rate, const char* unit, double limit) {
    ops_.push_back({name, seconds * 1e3, rate, unit, limit});
  }

  const BenchKernelsOptions& options_;
  const ModelShape& shape_;
  const Device device_;
  DType precision_ = DType::kBF16;
  DeviceLimits limits_;
  std::vector<MeasuredOp> ops_;
  TorchTimes torch_;
};

void run(const BenchKernelsOptions& options) {
  const auto& shapes = known_shapes();
  const auto found = std::ranges::find(shapes, options.shape, &ModelShape::name);
  if (found == shapes.end()) throw Error(ErrorCode::kInvalidArgument, "--shape: `" + options.shape + "` is not known");
  const Device device = open_device(options.device);
  std::cerr << "limits of " << kernels::linear_backend(device) << " ..." << std::endl;
  KernelsBench bench(options, *found, device);
  std::cerr << "linear layers ..." << std::endl;
  bench.linear_layers();
  std::cerr << "attention ..." << std::endl;
  bench.attention();
  std::cerr << "a decoder layer ..." << std::endl;
  bench.layer();
  std::cerr << "sampling ..." << std::endl;
  bench.sampling();
  std::cerr << "memory-bound ops ..." << std::endl;
  bench.memory_bound();
  bench.pages();
  if (device == Device::kGpu) {
    std::cerr << "codec rd ..." << std::endl;
    for (const int64_t batch_tokens : {1024, 8192}) bench.codec(batch_tokens);
  }
  if (options.torch == "on" || (options.torch == "auto" && device == Device::kGpu)) {
    bench.write();  // should torch never come to an end
    bench.torch();
  }
  bench.print();
}

}  // namespace

void add_bench_kernels_command(CLI::App& bench) {
  auto options = std::make_shared<BenchKernelsOptions>();  // the callback outlives this call
  CLI::App* command = bench.add_subcommand(
      "kernels",
      "Each op of the forward pass in the shapes of a model, as a share of the GEMM rate or memory bandwidth\n"
      "measured in the same run.");
  std::vector<std::string> names;
  for (const ModelShape& shape : known_shapes()) names.push_back(shape.name);
  command->add_option("--device", options->device, "cpu or cuda:N")->capture_default_str();
  command->add_option("--shape", options->shape, "Of which model")->check(CLI::IsMember(names))->capture_default_str();
  command->add_option("--tokens", options->tokens, "Tokens of a prefill")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens before a decoded one")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--batch", options->batches, "Sequences decoded together; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  command->add_option("--components", options->components, "Of codec rd: components of a layer")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--repetitions", options->repetitions, "The best of so many counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option(
          "--torch", options->torch,
          "PyTorch's times of the same shapes beside ours, where the python3 in PATH has it: on, off, or auto,\n"
          "which is on for a GPU; what it runs is in this binary")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  command->add_option("--json", options->json, "File for machine, commit, command and rows");
  command->callback([options] { run(*options); });
}

}  // namespace scd
