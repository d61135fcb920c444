#include "tools/scd/bench_codec.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/device/open_device.h"
#include "kernels/limits.h"
#include "kernels/linear.h"
#include "tools/scd/codec_bench_level.h"
#include "tools/scd/codec_bench_maps.h"
#include "tools/scd/codec_bench_on_device.h"
#include "tools/scd/device_limits.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

struct BenchCodecOptions {
  std::string device = "cpu";
  std::string artifact;
  SyntheticShape shape;
  int64_t tokens = 128;
  int64_t prompt_tokens = 8192;
  int repetitions = 9;
  std::string json;
};

// The limits that the machine sets, measured between the parts: what else runs here must not favour either side.
class Limits {
 public:
  Limits() : a_(kEdge, kEdge), b_(kEdge, kEdge), c_(kEdge, kEdge), from_(kCopyBytes, 1), to_(kCopyBytes) {}
  void measure() {
    gemm_.add(seconds_of(
        [&] { kernels::gemm_f32({.a = std::as_const(a_).view(), .b = std::as_const(b_).view(), .c = c_.view()}); }));
    peak_flop_per_s_ = std::max(peak_flop_per_s_, kernels::measure_cpu_gemm_rate({&kShape, 1}, 1, 1));
    copy_.add(seconds_of([&] { std::memcpy(to_.data(), from_.data(), kCopyBytes); }));
  }
  double flop_per_s() const { return kShape.flops() / gemm_.median(); }  // FP32
  double peak_flop_per_s() const { return peak_flop_per_s_; }            // the best: what else runs slows it
  double copy_bytes_per_s() const { return static_cast<double>(kCopyBytes) / copy_.median(); }

 private:
  static constexpr int64_t kEdge = 768;
  static constexpr kernels::GemmShape kShape{kEdge, kEdge, kEdge};
  static constexpr size_t kCopyBytes = size_t{64} << 20;
  DenseMatrix a_, b_, c_;
  std::vector<char> from_, to_;
  Samples gemm_, copy_;
  double peak_flop_per_s_ = 0;
};

void add_rows(const CodecBenchCase& codec, const CodecBenchLevel& level, const Limits& limits, TextTable& table,
              Report& report) {
  for (const bool is_encode : {true, false}) {
    const auto rate = [&](double seconds) { return codec.raw_bytes() / seconds / 1e9; };
    const auto seconds = [&](const CodecPart& part) { return (is_encode ? part.encode : part.decode).median(); };
    const auto rate_of = [&](const CodecPart& part) { return rate(seconds(part)); };
    const double gemm_seconds =
        is_encode ? level.encode_flops() / limits.flop_per_s()
                  : level.decode_flops() / (codec.rounds() ? limits.peak_flop_per_s() : limits.flop_per_s());
    const double components = level.components() / static_cast<double>(codec.units().size());
    const double symbols_per_s = level.symbols() / seconds(level.rans());
    const double bits = level.bits_per_component(RdForm::kEntropy);
    const double packed_bits = level.bits_per_component(RdForm::kPacked);
    const char* direction = is_encode ? "encode" : "decode";
    table.add_row({direction, std::to_string(level.level()), format_fixed(components, 1), format_fixed(bits, 2),
                   format_fixed(rate_of(level.transform()), 2), format_fixed(rate_of(level.quantiser()), 2),
                   format_fixed(rate_of(level.rans()), 2), format_fixed(1e9 / symbols_per_s, 2),
                   format_fixed(packed_bits, 2), format_fixed(rate_of(level.packed()), 2),
                   format_fixed(rate_of(level.whole()), 2), format_fixed(rate(gemm_seconds), 2)});
    report.add_row({{"task", "codec"},
                    {"codec", "rd"},
                    {"level", level.level()},
                    {"phase", direction},
                    {"tokens", codec.tokens()},
                    {"components", components},
                    {"bits_per_component", bits},
                    {"packed_bits_per_component", packed_bits},
                    {"transform_gbyte_per_s", rate_of(level.transform())},
                    {"quantiser_gbyte_per_s", rate_of(level.quantiser())},
                    {"rans_gbyte_per_s", rate_of(level.rans())},
                    {"rans_symbols_per_s", symbols_per_s},
                    {"packed_gbyte_per_s", rate_of(level.packed())},
                    {"whole_gbyte_per_s", rate_of(level.whole())},
                    {"gemm_limit_gbyte_per_s", rate(gemm_seconds)},
                    {"gemm_gflop_per_s", limits.flop_per_s() / 1e9},
                    {"peak_gemm_gflop_per_s", limits.peak_flop_per_s() / 1e9},
                    {"copy_gbyte_per_s", limits.copy_bytes_per_s() / 1e9},
                    {"gemm_share", gemm_seconds / seconds(level.whole())}});
  }
}

std::vector<RansTable> rans_tables(const RdQuantiserSettings& settings) {
  std::vector<RansTable> tables;
  for (int64_t row = 0; row < settings.frequencies.rows; ++row) {
    RansFrequencies frequencies;
    for (size_t i = 0; i < kRansSymbols; ++i) {
      frequencies[i] = static_cast<uint16_t>(settings.frequencies.at(row, static_cast<int64_t>(i)));
    }
    tables.emplace_back(frequencies);
  }
  return tables;
}

void check_shape(const SyntheticShape& shape) {
  const bool fits = !shape.components.empty() && std::ranges::is_sorted(shape.components, std::greater{}) &&
                    shape.components.back() >= 1 && shape.components.front() <= 2 * shape.kv_heads * shape.head_dim;
  if (shape.head_dim % 2 != 0) throw Error(ErrorCode::kInvalidArgument, "--head-dim: RoPE turns pairs of dimensions");
  if (!fits) {
    throw Error(ErrorCode::kInvalidArgument, "--components: falling numbers from " +
                                                 std::to_string(2 * shape.kv_heads * shape.head_dim) +
                                                 " (keys and values of a token) down to 1");
  }
}

// The two ways and their parts at one level, each beside the limit of the GPU that bounds it, and the host's entropy
// coder.
class RowsOnDevice {
 public:
  RowsOnDevice(const BenchCodecOptions& options, const DeviceLimits& limits) : options_(options), limits_(limits) {}

  void add(int32_t level, const CodecBenchTimes& times) {
    add_flops(level, times, "pages to payloads", times.encode_seconds, times.encode_flops);
    add_flops(level, times, "of it, pages to codes", times.codes_seconds, times.encode_flops);
    add_bytes(level, times, "of it, codes to payloads", times.coding_seconds, times.coding_bytes());
    add_flops(level, times, "payloads to pages", times.rebuild_seconds, times.rebuild_flops);
    add_bytes(level, times, "of it, payloads to codes", times.reading_seconds, times.reading_bytes());
    add_flops(level, times, "of it, codes to pages", times.products_seconds, times.rebuild_flops);
  }

  // Beside "of it, codes to payloads" and "of it, payloads to codes"; limits are those of the bus and of the host's
  // memory.
  void add(int32_t level, const CodecBenchTimes& times, const CodecBenchHostTimes& host) {
    const double codes = 4 * times.codes;
    add_of_host(level, times, "host: codes from the GPU", host.fetch_seconds, codes, host_limits_.from_gpu);
    add_of_host(level, times, "host: codes to payloads", host.coding_seconds, times.coding_bytes(), host_limits_.read);
    add_of_host(level, times, "host: payloads to codes", host.reading_seconds, times.reading_bytes(),
                host_limits_.read);
    add_of_host(level, times, "host: codes to the GPU", host.return_seconds, codes, host_limits_.to_gpu);
  }

  void print() const {
    table_.print(std::cout);
    std::cout << "a prompt of " << options_.prompt_tokens << " tokens in chunks of " << options_.tokens
              << ", the best of " << options_.repetitions << "; bits: of a component, headers included.\n"
              << "host: the same streams by the CPU's entropy coder on " << omp_get_max_threads()
              << " cores, and what\n"
              << "it then has to copy, which the GPU's coder does not; its rates count the bytes of the GPU's.\n"
              << "limits, measured in this run: a BF16 GEMM " << format_fixed(limits_.gemm_flop_per_s / 1e12, 1)
              << " TFLOP/s; memory " << format_fixed(limits_.memory_byte_per_s / 1e9, 0)
              << " GB/s (a copy, bytes read and written); of the host rows: "
              << format_fixed(host_limits_.from_gpu / 1e9, 1) << " GB/s from the\nGPU, "
              << format_fixed(host_limits_.to_gpu / 1e9, 1) << " to it, " << format_fixed(host_limits_.read / 1e9, 1)
              << " (a plain read of the host's memory).\n";
    report_.write(options_.json);
  }

 private:
  void add_flops(int32_t level, const CodecBenchTimes& times, const char* op, double seconds, double flops) {
    add(level, times, op, seconds, flops / seconds / 1e12, "tflop_per_s", limits_.gemm_flop_per_s / 1e12);
  }
  void add_bytes(int32_t level, const CodecBenchTimes& times, const char* op, double seconds, double bytes) {
    add(level, times, op, seconds, bytes / seconds / 1e9, "gbyte_per_s", limits_.memory_byte_per_s / 1e9);
  }
  void add_of_host(int32_t level, const CodecBenchTimes& times, const char* op, double seconds, double bytes,
                   double limit_byte_per_s) {
    add(level, times, op, seconds, bytes / seconds / 1e9, "gbyte_per_s", limit_byte_per_s / 1e9, omp_get_max_threads());
  }
  void add(int32_t level, const CodecBenchTimes& times, const char* op, double seconds, double rate, const char* unit,
           double limit, std::optional<int> cores = std::nullopt) {
    const double bits = 8 * times.payload_bytes / std::max(1.0, times.codes);
    table_.add_row({op, std::to_string(level), format_fixed(bits, 2), format_fixed(seconds * 1e3, 3),
                    format_fixed(rate, 1), unit, format_percent(rate / limit)});
    report_.add_row({{"task", "codec"},
                     {"codec", "rd"},
                     {"level", level},
                     {"bytes_per_token", times.payload_bytes / static_cast<double>(options_.prompt_tokens)},
                     {"device", options_.device},
                     {"op", op},
                     {"prompt_tokens", options_.prompt_tokens},
                     {"chunk_tokens", options_.tokens},
                     {"bits_per_component", bits},
                     {"total_ms", seconds * 1e3},
                     {unit, rate},
                     {"limit", limit},
                     {"limit_share", rate / limit},
                     {"cores", cores ? nlohmann::ordered_json(*cores) : nullptr}});
  }

  struct HostLimits {  // bytes a second
    static constexpr size_t kBytes = size_t{256} << 20;
    double from_gpu = kernels::measure_gpu_bus_bandwidth(kernels::BusDirection::kFromGpu, kBytes);
    double to_gpu = kernels::measure_gpu_bus_bandwidth(kernels::BusDirection::kToGpu, kBytes);
    double read = kernels::measure_read_bandwidth(kBytes, omp_get_max_threads());
  };

  const BenchCodecOptions& options_;
  const DeviceLimits limits_;
  const HostLimits host_limits_;
  TextTable table_{{"op", "level", "bits", "ms", "reached", "unit", "share of the limit"}};
  Report report_;
};

void run_on_device(const BenchCodecOptions& options, kernels::Device device, CodecBenchMaps maps) {
  CodecBenchOnDevice bench(
      std::move(maps),
      {.tokens = options.prompt_tokens, .batch_tokens = options.prompt_tokens, .chunk_tokens = options.tokens});
  std::cerr << "limits of " << kernels::linear_backend(device) << " ..." << std::endl;
  RowsOnDevice rows(options, measure_limits(device));
  const auto best = [&](const std::function<void()>& action) {
    return best_seconds(device, options.repetitions, action);
  };
  for (int32_t level = 0; level < bench.levels(); ++level) {
    std::cerr << "level " << level << " ..." << std::endl;
    const CodecBenchTimes times = bench.measure(level, best);
    rows.add(level, times);
    rows.add(level, times, bench.measure_host(level, best));
  }
  rows.print();
}

void run_on_cpu(const BenchCodecOptions& options, const CodecBenchMaps& maps) {
  omp_set_num_threads(1);  // rates are of one core
  const CodecBenchCase codec(maps, options.tokens);
  const RdQuantiser quantiser(codec.quantiser());
  const std::vector<RansTable> tables = rans_tables(codec.quantiser());
  std::vector<CodecBenchLevel> levels;
  for (int32_t level = 0; level < quantiser.levels(); ++level) levels.emplace_back(codec, quantiser, tables, level);
  Limits limits;
  for (int i = 1; i <= options.repetitions; ++i) {
    std::cerr << "round " << i << " of " << options.repetitions << "\n";
    limits.measure();
    for (CodecBenchLevel& level : levels) level.measure();
  }
  TextTable table({"way", "level", "components", "bits", "transform", "quantiser", "rANS alone", "ns/symbol",
                   "packed bits", "packed", "whole", "GEMM limit"});
  Report report;
  for (const CodecBenchLevel& level : levels) add_rows(codec, level, limits, table, report);
  table.print(std::cout);
  std::cout << "GB/s of BF16 keys and values on one core, medians of " << options.repetitions << "; chunks of "
            << options.tokens << " tokens. bits: of a component, rANS or packed.\n"
            << "transform: to codes; back from codes and what they are predicted from. quantiser, packed: symbols and\n"
            << "their coding; whole: payload to keys and values, RoPE included.\n"
            << "limits here: GEMM " << format_fixed(limits.flop_per_s() / 1e9, 1) << " GFLOP/s in FP32, "
            << format_fixed(limits.peak_flop_per_s() / 1e9, 1) << " (" << kernels::cpu_gemm_name()
            << ") for decoding where the CPU has BF16, copying " << format_fixed(limits.copy_bytes_per_s() / 1e9, 1)
            << " GB/s; GEMM limit: the transform at that rate.\n";
  report.write(options.json);
}

void run(const BenchCodecOptions& options) {
  if (options.artifact.empty()) check_shape(options.shape);
  const kernels::Device device = open_device(options.device);
  CodecBenchMaps maps = options.artifact.empty() ? CodecBenchMaps::synthetic(options.shape)
                                                 : CodecBenchMaps::of_artifact(options.artifact);
  if (device == kernels::Device::kGpu) {
    run_on_device(options, device, std::move(maps));
  } else {
    run_on_cpu(options, maps);
  }
}

}  // namespace

void add_bench_codec_command(CLI::App& bench) {
  auto options = std::make_shared<BenchCodecOptions>();  // the callback outlives this call
  CLI::App* command = bench.add_subcommand(
      "codec",
      "Speed of codec rd on one core, part by part: transform, quantiser, entropy coder, the packed form, the whole.\n"
      "On a GPU: pages to codes to payloads and back, and the host's entropy coder over the same streams.\n"
      "Beside the machine's limits, measured in the same run.\n"
      "Of an artifact, or of maps made up for a shape; values are random, of the deviations that were calibrated.");
  command->add_option("--device", options->device, "cpu or cuda:N")->capture_default_str();
  CLI::Option* artifact = command->add_option("--artifact", options->artifact, "Artifact of codec rd");
  const auto shape_option = [&](const char* name, auto& value, const char* what) {
    command->add_option(name, value, what)->check(CLI::Range(1, 4096))->capture_default_str()->excludes(artifact);
  };
  shape_option("--layers", options->shape.layers, "Without an artifact: layers");
  shape_option("--kv-heads", options->shape.kv_heads, "Without an artifact: KV heads");
  shape_option("--head-dim", options->shape.head_dim, "Without an artifact: width of a head, even");
  command
      ->add_option("--components", options->shape.components,
                   "Without an artifact: components that each level sends a layer, the most first; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->excludes(artifact);
  command->add_option("--tokens", options->tokens, "Tokens of a chunk")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  command->add_option("--prompt-tokens", options->prompt_tokens, "On a GPU: tokens coded together, chunk by chunk")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 17))
      ->capture_default_str();
  command->add_option("--repetitions", options->repetitions, "The median of so many counts; on a GPU the best")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--json", options->json, "File for machine, commit, command and rows");
  command->callback([options] { run(*options); });
}

}  // namespace scd
