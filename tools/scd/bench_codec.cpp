#include "tools/scd/bench_codec.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/codec/entropy/rans.h"
#include "common/codec/rd/rd_quantiser.h"
#include "kernels/limits.h"
#include "kernels/linear.h"
#include "tools/scd/codec_bench_case.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

struct BenchCodecOptions {
  std::string artifact;
  SyntheticShape shape;
  int64_t tokens = 128;
  int repetitions = 9;
  std::string json;
};

double seconds_of(const auto& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Seconds of one part, again and again.
class Samples {
 public:
  void add(double seconds) { seconds_.push_back(seconds); }
  double median() const {
    auto sorted = seconds_;
    std::ranges::sort(sorted);
    return sorted[sorted.size() / 2];
  }

 private:
  std::vector<double> seconds_;
};

struct Part {
  Samples encode, decode;
};

// The limits that the machine sets, measured between the parts: what else runs here must not favour either side.
class Limits {
 public:
  Limits() : a_(kEdge, kEdge), b_(kEdge, kEdge), c_(kEdge, kEdge), from_(kCopyBytes, 1), to_(kCopyBytes) {}
  void measure() {
    gemm_.add(seconds_of(
        [&] { kernels::gemm_f32({.a = std::as_const(a_).view(), .b = std::as_const(b_).view(), .c = c_.view()}); }));
    copy_.add(seconds_of([&] { std::memcpy(to_.data(), from_.data(), kCopyBytes); }));
  }
  double flop_per_s() const { return kernels::GemmShape{kEdge, kEdge, kEdge}.flops() / gemm_.median(); }
  double copy_bytes_per_s() const { return static_cast<double>(kCopyBytes) / copy_.median(); }

 private:
  static constexpr int64_t kEdge = 768;
  static constexpr size_t kCopyBytes = size_t{64} << 20;
  DenseMatrix a_, b_, c_;
  std::vector<char> from_, to_;
  Samples gemm_, copy_;
};

// One level of the codec: its symbols and bodies, made once, and the time of every part over all units.
class LevelBench {
 public:
  LevelBench(const CodecBenchCase& codec, const RdQuantiser& quantiser, const std::vector<RansTable>& tables,
             int32_t level)
      : codec_(codec), quantiser_(quantiser), tables_(tables), level_(level), planes_(codec.units().size()) {
    for (size_t unit = 0; unit < planes_.size(); ++unit) prepare(unit);
  }

  void measure() {
    measure_transform();
    measure_symbols(RdForm::kEntropy, entropy_form_);
    measure_symbols(RdForm::kPacked, packed_form_);
    measure_rans();
    whole_.encode.add(
        seconds_of([&] { for_each_unit([&](size_t unit) { wholes_[unit] = codec_.encode(unit, level_); }); }));
    whole_.decode.add(seconds_of([&] { for_each_unit([&](size_t unit) { codec_.decode(unit, wholes_[unit]); }); }));
  }

  void report(const Limits& limits, TextTable& table, Report& rows) const {
    add(limits, "encode", true, table, rows);
    add(limits, "decode", false, table, rows);
  }

 private:
  // Symbols of a unit, component after component, as RdQuantiser makes them.
  struct Planes {
    int64_t components = 0;
    std::vector<const RansTable*> tables;  // by component
    std::vector<uint8_t> symbols;          // [components, tokens]
    ByteBuffer stream, entropy, packed;
    DenseMatrix codes;    // [components, tokens]
    DenseMatrix outputs;  // [tokens, outputs]
  };

  void for_each_unit(const auto& action) {
    for (size_t unit = 0; unit < planes_.size(); ++unit) action(unit);
  }

  void prepare(size_t index) {
    const CodecBenchUnit& unit = codec_.units()[index];
    Planes& planes = planes_[index];
    const float step = codec_.quantiser().steps[static_cast<size_t>(level_)];
    planes.components = quantiser_.components(static_cast<int32_t>(index), level_);
    planes.codes = DenseMatrix(planes.components, codec_.tokens());
    planes.outputs = DenseMatrix(codec_.tokens(), unit.decoder_map.columns);
    for (int64_t row = 0; row < planes.components; ++row) {
      const float deviation = codec_.quantiser().deviations[index][static_cast<size_t>(row)];
      const RansTable& table = tables_[rd_table_of(deviation / step)];
      planes.tables.push_back(&table);
      for (int64_t i = 0; i < codec_.tokens(); ++i) {
        const int32_t q = rd_quantise(unit.codes.at(row, i), step);
        const bool known = std::abs(q) <= 127 && table.frequency(static_cast<uint8_t>(q + 128)) > 0;
        planes.symbols.push_back(known ? static_cast<uint8_t>(q + 128) : kRdEscape);
      }
    }
    components_ += static_cast<double>(planes.components);
  }

  void measure_transform() {
    transform_.encode.add(seconds_of([&] {
      for_each_unit([&](size_t index) {
        const CodecBenchUnit& unit = codec_.units()[index];
        Planes& planes = planes_[index];
        if (planes.components == 0) return;
        kernels::gemm_f32({.a = unit.encoder_map.top(planes.components),
                           .b = unit.source.view(),
                           .c = planes.codes.view(),
                           .transpose_b = true});
      });
    }));
    transform_.decode.add(seconds_of([&] {
      for_each_unit([&](size_t index) {
        const CodecBenchUnit& unit = codec_.units()[index];
        Planes& planes = planes_[index];
        if (planes.components == 0) return;
        kernels::gemm_f32({.a = unit.codes.top(planes.components),
                           .b = unit.decoder_map.top(planes.components),
                           .c = planes.outputs.view(),
                           .transpose_a = true});
      });
    }));
  }

  void measure_symbols(RdForm form, Part& part) {
    const auto body = [&](size_t unit) -> ByteBuffer& {
      return form == RdForm::kPacked ? planes_[unit].packed : planes_[unit].entropy;
    };
    part.encode.add(seconds_of([&] {
      for_each_unit([&](size_t unit) {
        body(unit).clear();
        quantiser_.encode(static_cast<int32_t>(unit), level_, codec_.units()[unit].codes.top(planes_[unit].components),
                          body(unit), form);
      });
    }));
    std::string problem;
    part.decode.add(seconds_of([&] {
      for_each_unit([&](size_t unit) {
        problem += quantiser_.decode(static_cast<int32_t>(unit), level_, body(unit), planes_[unit].codes.view());
      });
    }));
    if (!problem.empty()) throw Error(ErrorCode::kInternal, "bench codec: " + problem);
  }

  void measure_rans() {
    const auto tokens = static_cast<size_t>(codec_.tokens());
    rans_.encode.add(seconds_of([&] {
      for (Planes& planes : planes_) {
        RansEncoder encoder;
        for (size_t row = 0; row < planes.tables.size(); ++row) {
          encoder.put(*planes.tables[row], std::span(planes.symbols).subspan(row * tokens, tokens));
        }
        planes.stream.clear();
        encoder.finish(planes.stream);
      }
    }));
    std::vector<uint8_t> run(tokens);
    rans_.decode.add(seconds_of([&] {
      for (const Planes& planes : planes_) {
        RansDecoder decoder(planes.stream);
        for (const RansTable* table : planes.tables) decoder.take(*table, run);
        if (!decoder.finished()) throw Error(ErrorCode::kInternal, "bench codec: a stream did not come back");
      }
    }));
  }

  double bits_per_component(ByteBuffer Planes::*body) const {
    double bytes = 0;
    for (const Planes& planes : planes_) bytes += static_cast<double>((planes.*body).size());
    return 8 * bytes / std::max(1.0, components_ * static_cast<double>(codec_.tokens()));
  }

  void add(const Limits& limits, const char* direction, bool is_encode, TextTable& table, Report& rows) const {
    const auto seconds = [&](const Part& part) { return (is_encode ? part.encode : part.decode).median(); };
    const auto rate = [&](double time) { return codec_.raw_bytes() / time / 1e9; };
    double flops = 0;
    for (size_t unit = 0; unit < planes_.size(); ++unit) {
      flops += kernels::GemmShape{codec_.tokens(), codec_.units()[unit].decoder_map.columns, planes_[unit].components}
                   .flops();
    }
    const double gemm_seconds = flops / limits.flop_per_s();
    const double symbols = components_ * static_cast<double>(codec_.tokens());
    const double components = components_ / static_cast<double>(planes_.size());
    table.add_row({direction, std::to_string(level_), format_fixed(components, 1),
                   format_fixed(bits_per_component(&Planes::entropy), 2), format_fixed(rate(seconds(transform_)), 2),
                   format_fixed(rate(seconds(entropy_form_)), 2), format_fixed(rate(seconds(rans_)), 2),
                   format_fixed(seconds(rans_) / symbols * 1e9, 2),
                   format_fixed(bits_per_component(&Planes::packed), 2), format_fixed(rate(seconds(packed_form_)), 2),
                   format_fixed(rate(seconds(whole_)), 2), format_fixed(rate(gemm_seconds), 2)});
    rows.add_row({{"task", "codec"},
                  {"codec", "rd"},
                  {"level", level_},
                  {"phase", direction},
                  {"tokens", codec_.tokens()},
                  {"components", components},
                  {"bits_per_component", bits_per_component(&Planes::entropy)},
                  {"packed_bits_per_component", bits_per_component(&Planes::packed)},
                  {"transform_gbyte_per_s", rate(seconds(transform_))},
                  {"symbols_gbyte_per_s", rate(seconds(entropy_form_))},
                  {"rans_gbyte_per_s", rate(seconds(rans_))},
                  {"rans_symbols_per_s", symbols / seconds(rans_)},
                  {"packed_symbols_gbyte_per_s", rate(seconds(packed_form_))},
                  {"whole_gbyte_per_s", rate(seconds(whole_))},
                  {"gemm_limit_gbyte_per_s", rate(gemm_seconds)},
                  {"gemm_gflop_per_s", limits.flop_per_s() / 1e9},
                  {"copy_gbyte_per_s", limits.copy_bytes_per_s() / 1e9},
                  {"gemm_share", gemm_seconds / seconds(whole_)}});
  }

  const CodecBenchCase& codec_;
  const RdQuantiser& quantiser_;
  const std::vector<RansTable>& tables_;
  int32_t level_;
  double components_ = 0;  // of all units
  std::vector<Planes> planes_;
  std::vector<ByteBuffer> wholes_ = std::vector<ByteBuffer>(planes_.size());
  Part transform_, entropy_form_, packed_form_, rans_, whole_;
};

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
  if (!fits) {
    throw Error(ErrorCode::kInvalidArgument, "--components: falling numbers from " +
                                                 std::to_string(2 * shape.kv_heads * shape.head_dim) +
                                                 " (keys and values of a token) down to 1");
  }
}

void run(const BenchCodecOptions& options) {
  omp_set_num_threads(1);  // rates are of one core
  if (options.artifact.empty()) check_shape(options.shape);
  const CodecBenchCase codec = options.artifact.empty() ? CodecBenchCase::synthetic(options.shape, options.tokens)
                                                        : CodecBenchCase::of_artifact(options.artifact, options.tokens);
  const RdQuantiser quantiser(codec.quantiser());
  const std::vector<RansTable> tables = rans_tables(codec.quantiser());
  std::vector<LevelBench> levels;
  for (int32_t level = 0; level < quantiser.levels(); ++level) levels.emplace_back(codec, quantiser, tables, level);
  Limits limits;
  for (int i = 0; i <= options.repetitions; ++i) {
    std::cerr << "round " << i << " of " << options.repetitions << "\n";
    limits.measure();
    for (LevelBench& level : levels) level.measure();
  }
  TextTable table({"way", "level", "components", "bits", "transform", "quantiser", "rANS alone", "ns/symbol",
                   "packed bits", "packed", "whole", "GEMM limit"});
  Report report;
  for (const LevelBench& level : levels) level.report(limits, table, report);
  table.print(std::cout);
  std::cout << "GB/s of BF16 keys and values on one core, medians of " << options.repetitions + 1 << "; chunks of "
            << options.tokens << " tokens. bits: of a component, rANS or packed.\n"
            << "quantiser, packed: symbols and their coding; whole: payload to keys and values, RoPE included.\n"
            << "limits here: GEMM " << format_fixed(limits.flop_per_s() / 1e9, 1) << " GFLOP/s, copying "
            << format_fixed(limits.copy_bytes_per_s() / 1e9, 1) << " GB/s; GEMM limit: the transform at that rate.\n";
  report.write(options.json);
}

}  // namespace

void add_bench_codec_command(CLI::App& bench) {
  auto options = std::make_shared<BenchCodecOptions>();  // the callback outlives this call
  CLI::App* command = bench.add_subcommand(
      "codec",
      "Speed of codec rd on one core, part by part: transform, quantiser, entropy coder, the packed form, the whole.\n"
      "Of an artifact, or of maps made up for a shape; values are random, of the deviations that were calibrated.");
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
  command->add_option("--repetitions", options->repetitions, "The median of so many counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--json", options->json, "File for machine, commit, command and rows");
  command->callback([options] { run(*options); });
}

}  // namespace scd
