// `scd calibrate --recheck`: nothing is fitted. What an artifact's codec loses is measured again on other held-out
// text, and its decoder keeps the result as what max_kl is compared with.
#pragma once

#include <filesystem>
#include <vector>

#include "tools/scd/calibration.h"

namespace scd {

// By level on input.text.held_out, of codecs without levels one. The artifact must be the pair's.
std::vector<CodecPrediction> check_levels(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                          const ArtifactDecoder& decoder, CacheExperimentOptions options);

struct RecheckCommand {
  const CalibrationInput& input;  // its text: read_check_text()
  CacheExperimentOptions experiment;
  double max_kl = 0;  // 0: no limit
  std::filesystem::path out;
  std::filesystem::path json;
};

// Prints what was found and rewrites the consumer's decoder, its maps as they are. Throws Error kFailedPrecondition,
// with nothing written, for text that the artifact was fitted on, and when no level meets max_kl.
void recheck_and_write(const RecheckCommand& command);

}  // namespace scd
