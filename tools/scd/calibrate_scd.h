// `scd calibrate` of the codec as published: scd.
#pragma once

#include <filesystem>

#include "tools/scd/calibration.h"

namespace scd {

struct ScdCommand {
  const CalibrationInput& input;
  CalibrationOptions options;
  std::filesystem::path out;
  std::filesystem::path json;
  const ArtifactEncoder* encoder = nullptr;  // that `out` holds, where only a consumer is added
};

// Prints what was found and writes the artifact. Throws Error kFailedPrecondition, with nothing written, when the limit
// of the options is not met.
void calibrate_and_write_scd(const ScdCommand& command);

}  // namespace scd
