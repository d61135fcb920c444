#include "tools/scd/logits.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/device/open_device.h"
#include "common/model/forward.h"
#include "kernels/linear.h"
#include "tools/scd/precision.h"

namespace scd {
namespace {

constexpr size_t kPassTokens = 256;  // bounds the memory of logits held at once

struct LogitsOptions {
  std::string model;
  std::string adapter;
  std::string ids;
  std::string device = "cpu";
  std::string precision = "auto";
  std::string rope_frequencies = "fp32";
  std::string out;
  int64_t greedy = 0;
};

std::vector<TokenId> parse_ids(std::string text, int32_t vocab) {
  if (text == "-") text.assign(std::istreambuf_iterator<char>(std::cin), {});
  std::vector<TokenId> ids;
  for (const char *at = text.data(), *end = at + text.size(); at != end;) {
    if (*at == ',' || std::isspace(static_cast<unsigned char>(*at)) != 0) {
      ++at;
      continue;
    }
    TokenId id = 0;
    const auto [next, failed] = std::from_chars(at, end, id);
    if (failed != std::errc() || id < 0 || id >= vocab) {
      throw Error(ErrorCode::kInvalidArgument, "--ids: `" + std::string(at, std::find(at, end, ',')) +
                                                   "`: expected ids of 0 to " + std::to_string(vocab - 1));
    }
    ids.push_back(id);
    at = next;
  }
  if (ids.empty()) throw Error(ErrorCode::kInvalidArgument, "--ids: expected at least one id");
  return ids;
}

// Logits of every position, written as they come; those of the last are returned.
std::vector<float> write_logits(const Model& model, KvCache& cache, const PageTable& pages,
                                const std::vector<TokenId>& ids, std::ostream* out) {
  std::vector<float> last;
  for (size_t first = 0; first < ids.size(); first += kPassTokens) {
    const auto tokens = std::span(ids).subspan(first, std::min(kPassTokens, ids.size() - first));
    const SequenceChunk chunk{&pages, static_cast<int64_t>(first), tokens};
    ForwardPass pass(model, cache, std::span(&chunk, 1));
    while (pass.next_layer() < model.config().layers) pass.run_layer();
    std::vector<int64_t> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    const auto logits = pass.logits(rows);
    const auto* values = logits.row<float>(0);
    if (out != nullptr) {
      out->write(reinterpret_cast<const char*>(values),
                 static_cast<std::streamsize>(logits.rows * logits.columns * int64_t{sizeof(float)}));
    }
    const auto* row = logits.row<float>(logits.rows - 1);
    last.assign(row, row + logits.columns);
  }
  return last;
}

void print_greedy(const Model& model, KvCache& cache, const PageTable& pages, int64_t position, int64_t steps,
                  std::vector<float> logits) {
  for (int64_t step = 0; step < steps; ++step) {
    const auto id = static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
    std::cout << (step == 0 ? "" : ",") << id << std::flush;
    if (step + 1 == steps) break;
    const SequenceChunk chunk{&pages, position + step, std::span(&id, 1)};
    logits = forward_last_logits(model, cache, std::span(&chunk, 1));
  }
  std::cout << "\n";
}

void run(const LogitsOptions& options) {
  if (options.out.empty() && options.greedy == 0) {
    throw Error(ErrorCode::kInvalidArgument, "nothing to do: expected --out FILE, --greedy N or both");
  }
  const kernels::Device device = open_device(options.device);
  LoadOptions load{.directory = options.model,
                   .precision = parse_precision(options.precision, device),
                   .device = device,
                   .rope_frequencies = parse_float_dtype("--rope-frequencies", options.rope_frequencies)};
  if (!options.adapter.empty()) load.adapter = options.adapter;
  const Model model = Model::load(load);
  const auto ids = parse_ids(options.ids, model.config().vocab);
  const int64_t positions = static_cast<int64_t>(ids.size()) + options.greedy;
  if (positions > model.config().max_positions) {
    throw Error(ErrorCode::kOutOfRange, std::to_string(positions) + " tokens; the model's context holds " +
                                            std::to_string(model.config().max_positions));
  }
  KvCache cache(model.config().kv_shape(model.precision()), static_cast<int32_t>(positions / kPageTokens + 1), device);
  PageTable pages = cache.pool().make_table();
  std::move(pages.reserve(positions)).value_or_throw();

  std::ofstream out;
  if (!options.out.empty()) {
    out.open(options.out, std::ios::binary | std::ios::trunc);
    if (!out) throw Error(ErrorCode::kUnavailable, options.out + ": cannot write");
  }
  auto last = write_logits(model, cache, pages, ids, options.out.empty() ? nullptr : &out);
  if (!options.out.empty()) {
    if (!out.flush()) throw Error(ErrorCode::kUnavailable, options.out + ": cannot write; is the disk full?");
    std::cerr << options.out << ": logits [" << ids.size() << ", " << model.config().vocab << "] F32, computed in "
              << (model.precision() == kernels::DType::kF32 ? "fp32" : "bf16") << ", RoPE frequencies in "
              << options.rope_frequencies << "\n";
    if (load.rope_frequencies == kernels::DType::kF32) {
      std::cerr << "compared with a module that was converted whole (PyTorch: model.half(), model.to(torch.bfloat16))? "
                   "Its frequencies are rounded: --rope-frequencies fp16 or bf16\n";
    }
  }
  if (options.greedy > 0) {
    print_greedy(model, cache, pages, static_cast<int64_t>(ids.size()), options.greedy, std::move(last));
  }
}

}  // namespace

void add_logits_command(CLI::App& app) {
  auto options = std::make_shared<LogitsOptions>();  // the callback outlives this call
  CLI::App* command = app.add_subcommand(
      "logits",
      "Logits of every position of a list of ids: to check that a model computes here what it computes elsewhere.\n"
      "FILE holds them in FP32, little endian, row-major [ids, vocabulary]. Nothing is added to the ids.");
  command->add_option("--model", options->model, "Hugging Face checkpoint folder")->required();
  command->add_option("--adapter", options->adapter, "PEFT LoRA adapter folder, merged while loading");
  command->add_option("--ids", options->ids, "Token ids, separated by commas; - reads them from standard input")
      ->required();
  command->add_option("--device", options->device, "cpu or cuda:N")->capture_default_str();
  command->add_option("--precision", options->precision, "fp32, bf16, or auto: bf16 where the device multiplies it")
      ->capture_default_str();
  command->add_option("--out", options->out, "File the logits are written to");
  command
      ->add_option("--greedy", options->greedy,
                   "Print the N ids that greedy decoding appends (not stopped by an end id)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command
      ->add_option("--rope-frequencies", options->rope_frequencies,
                   "fp32, bf16 or fp16: round RoPE's frequencies, to compare with a framework that converted its\n"
                   "whole module, frequency buffer included (PyTorch: model.to(torch.bfloat16))")
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace scd
