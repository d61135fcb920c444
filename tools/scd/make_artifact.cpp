#include "tools/scd/make_artifact.h"

#include <iostream>
#include <memory>

#include "tools/scd/made_up_artifact.h"

namespace scd {

void add_make_artifact_command(CLI::App& app) {
  auto command = std::make_shared<MadeUpArtifactOptions>();  // the callback outlives this call
  CLI::App* make =
      app.add_subcommand("make-artifact",
                         "An artifact of codec rd with random maps for a pair of models, without calibration: what is "
                         "served with it takes\n"
                         "the time of the real thing, and its answers mean nothing. For tests and benchmarks.");
  make->add_option("--producer", command->producer, "Checkpoint of the prefill server")->required();
  make->add_option("--consumer", command->consumer, "Checkpoint of the decode server")->required();
  make->add_option("--out", command->out, "Folder to write")->required();
  make->add_option("--exact-layers", command->exact_layers, "As of calibrate; 0: nothing is predicted")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  make->add_option("--group", command->group, "As of calibrate")->check(CLI::Range(1, 4096))->capture_default_str();
  make->add_option("--ratios", command->ratios, "Levels: about how many times smaller than BF16, rising")
      ->delimiter(',')
      ->check(CLI::Range(kLeastMadeUpRatio, kMostMadeUpRatio))
      ->capture_default_str();
  make->add_option("--seed", command->seed, "Of the maps")->capture_default_str();
  make->callback([command] {
    const LayerPlan plan = write_made_up_artifact(*command);
    std::cout << command->out.string() << ": codec rd, " << to_string(plan)
              << "; not calibrated: answers mean nothing\n";
  });
}

}  // namespace scd
