// What `scd bench serve` asks: prompts and the moments at which they arrive. A seed gives the same workload on every
// machine.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "common/base/token.h"

namespace scd {

// Arrivals as a Poisson process of a rate (open loop), or so many requests under way at once (closed loop).
struct LoadPoint {
  double rate_per_s = 0;    // 0: closed loop; infinity: all at once
  int32_t concurrency = 0;  // of the closed loop
  bool closed() const { return rate_per_s == 0; }
};

struct WorkloadOptions {
  size_t requests = 100;
  int64_t prompt_tokens = 512;
  double prompt_spread = 0;  // lengths are uniform in prompt_tokens * (1 -+ spread)
  double shared_share = 0;   // of the requests, those that begin with a shared prefix
  int64_t shared_tokens = 0;
  int32_t shared_prefixes = 1;  // different ones
  uint64_t seed = 1;
};

// Throws Error INVALID_ARGUMENT naming the options of `scd bench serve` that do not go together.
void check_workload(const WorkloadOptions& options);

struct LoadPrompt {
  std::vector<TokenId> tokens{};
  std::string text{};  // where there are no tokens
};

// Random tokens of a vocabulary. A prompt with a shared prefix has that for its first tokens, and one of its own at
// least.
std::vector<LoadPrompt> synthetic_prompts(const WorkloadOptions& options, int32_t vocabulary);
// The same, cut from a text at random places; shared prefixes from its beginning. Throws Error INVALID_ARGUMENT for a
// text that is shorter than the longest prompt.
std::vector<LoadPrompt> text_prompts(const WorkloadOptions& options, std::span<const TokenId> text);
// A data set's, in random order; again from the start when there are too few.
std::vector<LoadPrompt> dataset_prompts(const WorkloadOptions& options, std::span<const std::string> prompts);

// Seconds since the start, rising, from 0 to (requests - 1) / rate: stretched so that the rate is met exactly, however
// few the requests. Workloads of one seed differ between rates in scale only.
std::vector<double> poisson_arrivals(double rate_per_s, size_t requests, uint64_t seed);

}  // namespace scd
