// The requests of `scd bench pareto` at one bandwidth: every codec and level, prompt length and regime, in turns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/token.h"
#include "tools/scd/pareto_codecs.h"
#include "tools/scd/pareto_rows.h"
#include "tools/scd/server_pair.h"

namespace scd {

struct ParetoPlan {
  std::vector<ParetoCodec> codecs;
  std::vector<int64_t> prompt_tokens;
  int32_t repeats = 3;
  std::vector<TokenId> text = {};  // prompts are cut from it; longer than the longest prompt
};

// Tells how many of the requests are done, and of what the last one was.
using ParetoProgress = std::function<void(size_t done, size_t of, const std::string& note)>;

// Codecs take turns within a run, so that a drift of the machine's speed meets all of them. Each run of a codec asks a
// prompt twice: as the first of its prefix (prefill in path), then with other last tokens while its codes are stored
// (hand-off). Throws Error: a request's failure, a regime that was not met, kCancelled after `stop`.
std::vector<ParetoPoint> measure_pareto(const std::vector<std::unique_ptr<ServerPair>>& pairs, const ParetoPlan& plan,
                                        double bandwidth_gbps, const std::stop_token& stop,
                                        const ParetoProgress& progress);

}  // namespace scd
