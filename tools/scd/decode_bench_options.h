// The options of the benches that decode with a checkpoint.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace scd {

struct DecodeBenchOptions {
  std::string model;
  std::string device = "cpu";
  std::string precision = "auto";
  std::string json;
  int threads = 0;
  std::vector<int64_t> batches;
  int64_t context = 0;
  int64_t steps = 0;
  int repetitions = 0;
};

// `steps`, `repetitions`: what they count. Returns the option of the model.
inline CLI::Option* add_decode_bench_options(CLI::App& command, DecodeBenchOptions& options, const std::string& steps,
                                             const std::string& repetitions) {
  CLI::Option* const model = command.add_option("--model", options.model, "Hugging Face checkpoint folder");
  command.add_option("--device", options.device, "cpu or cuda:N")->capture_default_str();
  command.add_option("--precision", options.precision, "fp32, bf16, or auto: bf16 where the device multiplies it")
      ->capture_default_str();
  command.add_option("--threads", options.threads, "0: as many as there are cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command.add_option("--batch", options.batches, "Sequences decoded together; comma-separated")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  command.add_option("--context", options.context, "Tokens before the first decoded one")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command.add_option("--steps", options.steps, steps)
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  command.add_option("--repetitions", options.repetitions, repetitions)
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command.add_option("--json", options.json, "File for machine, commit, command and rows");
  return model;
}

}  // namespace scd
