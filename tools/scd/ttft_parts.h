// The parts of the time to the first token, in the order in which they happen: names for people, keys of reports.
#pragma once

#include <array>

namespace scd {

struct TtftPart {
  const char* name;
  const char* key;
};

inline constexpr std::array<TtftPart, 8> kTtftParts{{{"queue", "queue_ms"},
                                                     {"prefill", "prefill_ms"},
                                                     {"encode", "encode_ms"},
                                                     {"wire", "wire_ms"},
                                                     {"rebuild", "rebuild_ms"},
                                                     {"suffix", "suffix_ms"},
                                                     {"first step", "first_step_ms"},
                                                     {"orchestration", "orchestration_ms"}}};

// What a request met: the first of its prefix, or one whose codes the prefill server already had.
inline constexpr const char* kPrefillInPath = "prefill_in_path";
inline constexpr const char* kHandoff = "handoff";

}  // namespace scd
