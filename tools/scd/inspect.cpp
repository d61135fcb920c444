#include "tools/scd/inspect.h"

#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "common/base/error.h"
#include "common/model/checkpoint.h"
#include "common/model/fingerprint.h"
#include "common/model/lora.h"
#include "common/model/model_config.h"
#include "tools/scd/inspect_artifact.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

struct InspectOptions {
  std::string directory;
  std::string adapter;
  bool tensors = false;
};

struct Totals {
  int64_t tensors = 0;
  int64_t values = 0;
  uint64_t bytes = 0;
};

std::string in_units(double count) {
  if (count >= 1e9) return format_fixed(count / 1e9, 2) + " G";
  if (count >= 1e6) return format_fixed(count / 1e6, 2) + " M";
  return format_fixed(count, 0);
}

int64_t values_of(const StoredTensor& tensor) {
  int64_t values = 1;
  for (const int64_t extent : tensor.shape) values *= extent;
  return values;
}

// Stored values by dtype.
std::map<std::string, Totals> totals_of(const Checkpoint& checkpoint) {
  std::map<std::string, Totals> totals;
  for (const auto& [name, entry] : checkpoint.tensors()) {
    Totals& of_dtype = totals[entry.tensor->dtype];
    ++of_dtype.tensors;
    of_dtype.values += values_of(*entry.tensor);
    of_dtype.bytes += entry.tensor->bytes.size();
  }
  return totals;
}

void print_config(const ModelConfig& config) {
  TextTable table({"field", "value"});
  const auto row = [&](const std::string& field, const std::string& value) { table.add_row({field, value}); };
  row("family", config.family);
  row("layers", std::to_string(config.layers));
  row("hidden", std::to_string(config.hidden));
  row("intermediate", std::to_string(config.intermediate));
  row("heads (query / key-value)", std::to_string(config.query_heads) + " / " + std::to_string(config.kv_heads));
  row("head width", std::to_string(config.head_dim));
  row("vocabulary", std::to_string(config.vocab));
  row("context", std::to_string(config.max_positions));
  row("sliding window", config.sliding_window == 0 ? "none"
                                                   : std::to_string(config.sliding_window) + " from layer " +
                                                         std::to_string(config.first_window_layer));
  row("biases", std::string(config.qkv_bias ? "q,k,v " : "") + (config.output_bias ? "o " : "") +
                    (config.mlp_bias ? "mlp" : "") + (config.qkv_bias || config.mlp_bias ? "" : "none"));
  row("q/k norm", config.qk_norm ? "yes" : "no");
  row("tied embeddings", config.tied_embeddings ? "yes" : "no");
  row("RoPE", config.rope_settings);
  std::string ends;
  for (const TokenId id : config.end_of_sequence) ends += (ends.empty() ? "" : ", ") + std::to_string(id);
  row("end-of-sequence ids", ends.empty() ? "none" : ends);
  row("KV cache in BF16",
      std::to_string(config.kv_shape(kernels::DType::kBF16).bf16_bytes_per_token()) + " bytes/token");
  table.print(std::cout);
}

void print_tensors(const Checkpoint& checkpoint) {
  TextTable table({"tensor", "dtype", "shape", "file"});
  for (const auto& [name, entry] : checkpoint.tensors()) {
    table.add_row(
        {name, entry.tensor->dtype, shape_text(entry.tensor->shape), checkpoint.file_of(entry).filename().string()});
  }
  std::cout << "\n";
  table.print(std::cout);
}

void print_totals(const Checkpoint& checkpoint) {
  std::cout << "\n";
  TextTable table({"dtype", "tensors", "parameters", "MiB"});
  for (const auto& [dtype, totals] : totals_of(checkpoint)) {
    table.add_row({dtype, std::to_string(totals.tensors), in_units(static_cast<double>(totals.values)),
                   format_fixed(static_cast<double>(totals.bytes) / (1 << 20), 1)});
  }
  table.print(std::cout);
}

void inspect_checkpoint(const InspectOptions& options) {
  print_config(ModelConfig::from_directory(options.directory));
  const Checkpoint checkpoint(options.directory);
  print_totals(checkpoint);
  if (options.tensors) print_tensors(checkpoint);
  std::optional<std::filesystem::path> adapter;
  if (!options.adapter.empty()) adapter = options.adapter;
  const ModelFingerprint fingerprint = fingerprint_model(options.directory, adapter);
  std::cout << "\nfingerprint  " << fingerprint.weights << (adapter ? "  (with the adapter)" : "") << "\ntokenizer    "
            << (fingerprint.tokenizer.empty() ? "none" : fingerprint.tokenizer) << "\n";
}

void inspect_adapter(const InspectOptions& options) {
  const LoraAdapter adapter(options.directory);
  std::cout << "PEFT LoRA adapter\n";
  print_totals(adapter.checkpoint());
  if (options.tensors) print_tensors(adapter.checkpoint());
  std::cout << "\nrank and scale of each module: " << adapter.settings() << "\n";
}

void run(const InspectOptions& options) {
  const std::filesystem::path directory = options.directory;
  if (std::filesystem::exists(directory / "adapter_config.json")) return inspect_adapter(options);
  if (std::filesystem::exists(directory / "config.json")) return inspect_checkpoint(options);
  if (looks_like_artifact(directory)) return print_artifact(directory, std::cout);
  throw Error(ErrorCode::kNotFound, options.directory +
                                        ": neither a checkpoint (config.json), nor an adapter (adapter_config.json), "
                                        "nor a codec artifact (encoder/codec.json)");
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();  // the callback outlives this call
  CLI::App* command = app.add_subcommand(
      "inspect",
      "What is inside a folder: a checkpoint (configuration, parameters, fingerprint), a PEFT adapter or a codec\n"
      "artifact. Reads headers and hashes the weights; loads nothing.");
  command->add_option("folder", options->directory, "Checkpoint, adapter or codec artifact")->required();
  command->add_option("--adapter", options->adapter, "Adapter that the checkpoint's fingerprint shall cover");
  command->add_flag("--tensors", options->tensors, "List every tensor");
  command->callback([options] { run(*options); });
}

}  // namespace scd
