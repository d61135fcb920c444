#include "tools/scd/make_model.h"

#include <iostream>
#include <memory>
#include <string>

#include "common/model/make_model.h"
#include "common/model/model_config.h"
#include "common/tokenizer/byte_tokenizer.h"

namespace scd {
namespace {

struct Command {
  MakeModelOptions model;
  std::string out;
};

void run(Command command) {
  command.model.tokenizer_json = make_byte_tokenizer_json(model_shape_vocab(command.model.shape));
  make_model(command.model, command.out);
  const ModelConfig config = ModelConfig::from_directory(command.out);
  std::cout << command.out << ": " << config.family << ", " << config.layers << " layers, hidden " << config.hidden
            << ", vocabulary " << config.vocab << ", " << command.model.dtype << "\n";
}

}  // namespace

void add_make_model_command(CLI::App& app) {
  auto command = std::make_shared<Command>();  // the callback outlives this call
  MakeModelOptions& model = command->model;
  CLI::App* make = app.add_subcommand(
      "make-model",
      "A checkpoint with random weights in Hugging Face form, with a byte tokenizer: for tests and benchmarks.\n"
      "The same options give the same bytes. --perturb makes a \"fine-tune\" of the checkpoint of the same seed.");
  make->add_option("--out", command->out, "Folder to write")->required();
  make->add_option("--shape", model.shape, "Shape of a known model, or tiny or small")
      ->check(CLI::IsMember(model_shapes()))
      ->capture_default_str();
  make->add_option("--seed", model.seed, "Of the weights")->capture_default_str();
  make->add_option("--dtype", model.dtype, "Stored type")
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}))
      ->capture_default_str();
  make->add_option("--family", model.family, "Of tiny and small")
      ->check(CLI::IsMember({"llama", "mistral", "qwen2", "qwen3"}))
      ->capture_default_str();
  make->add_option("--rope-theta", model.rope_theta, "RoPE base of tiny and small")->capture_default_str();
  make->add_option("--perturb", model.perturb, "Noise added to every weight, relative to its own deviation")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  make->add_option("--perturb-seed", model.perturb_seed, "Of that noise")->capture_default_str();
  make->callback([command] { run(*command); });
}

}  // namespace scd
