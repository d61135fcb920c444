// `scd calibrate` of the baselines that fit nothing: droidspeak and lora_delta.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tools/scd/baseline_calibration.h"

namespace CLI {
class App;
}

namespace scd {

inline constexpr std::array<std::string_view, 1> kDroidSpeakOptions{"--critical-layers"};

void add_baseline_options(CLI::App& command, BaselineOptions& options);

struct BaselineCommand {
  const CalibrationInput& input;
  CodecId codec;
  BaselineOptions options;
  std::vector<std::string> native;         // droidspeak: candidate spans, "12-18"
  std::filesystem::path consumer_adapter;  // lora_delta
  double max_kl = 0;                       // 0: no limit
  std::filesystem::path out;
  std::filesystem::path json;
  const ArtifactEncoder* encoder = nullptr;  // that `out` holds, where only a consumer is added
};

// Before the long work. Throws Error kFailedPrecondition, saying why, where `consumer` with `adapter` is not the
// producer plus this adapter.
void require_adapter_of(const ModelIdentity& producer, const std::filesystem::path& consumer,
                        const std::filesystem::path& adapter);

// Prints what was found and writes the artifact. Throws Error kFailedPrecondition, with nothing written, when the KL on
// held-out text is above max_kl.
void calibrate_and_write_baseline(BaselineCommand command);

}  // namespace scd
