// `scd calibrate` of codecs with units and levels: rd and kvtc.
#pragma once

#include <array>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tools/scd/rd_calibration.h"

namespace CLI {
class App;
}

namespace scd {

// What the encoder decides, and what a further consumer's decoder may be fitted with.
inline constexpr std::array<std::string_view, 8> kRdEncoderOptions{
    "--ratios",         "--exact-layers",     "--group",         "--native",
    "--bandwidth-gbps", "--max-native-share", "--no-prediction", "--variants"};
inline constexpr std::array<std::string_view, 3> kRdDecoderOptions{"--weigh", "--decoder-network", "--anchor-share"};

struct RdCommandOptions {
  RdCalibrationOptions calibration;
  // Every combination is a plan, and is fitted in every variant and with networks of every width.
  std::vector<int32_t> exact_layers{1};
  std::vector<int32_t> groups{3};
  std::vector<std::string> native{"none"};
  bool no_prediction = false;
  std::vector<std::string> variants{"full"};
  std::string weigh = "answers";
};

// "8-12+18-24": layers 8 to 12 and 18 to 24; "none": none. Throws Error kInvalidArgument.
std::vector<RdPlanOptions::Span> parse_spans(const std::string& text);

void add_rd_options(CLI::App& command, RdCommandOptions& options);

// What can be said before models are loaded. Throws Error kInvalidArgument naming the option.
void check_rd_options(const RdCommandOptions& options, bool add_consumer);

struct RdCommand {
  std::span<const CalibrationInput> inputs;  // of each consumer; producer and text are one
  RdCommandOptions options;
  double max_kl = 0;  // 0: no limit
  std::filesystem::path out;
  std::filesystem::path json;
  const ArtifactEncoder* encoder = nullptr;  // that `out` holds, where only a consumer is added
};

// Prints what was found and writes the artifact. Throws Error kFailedPrecondition, with nothing written, when no level
// meets max_kl.
void calibrate_and_write_rd(RdCommand command);

}  // namespace scd
