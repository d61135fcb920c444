// What KL is measured on: windows of text, and which of their last tokens count. Of a question these are the tokens of
// what the consumer itself answers, for copying needs details that hardly matter on average; of prose all that the
// consumer runs itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/scd/cache_experiment.h"
#include "tools/scd/calibration.h"

namespace scd {

struct ScoredText {
  std::vector<TokenWindow> windows;
  std::vector<int64_t> scored;  // by window: how many of its last tokens, each for the prediction of the next one
};

// Questions followed by what the consumer answers, greedily and at most a line; prose as it is. Shows its progress.
ScoredText validation_text(const CalibrationInput& input, const CacheExperimentOptions& options);
// Of validation text one question a context, of at most kSampledContexts: for what measures layer by layer.
ScoredText validation_sample(const CalibrationInput& input, const CacheExperimentOptions& options);
ScoredText held_out_text(const CalibrationInput& input, const CacheExperimentOptions& options);

// The text as it is, the last tokens of each window scored.
ScoredText last_tokens_of(std::span<const TokenWindow> windows, const CacheExperimentOptions& options);

inline constexpr size_t kSampledContexts = 12;

// How many of the first windows begin alike for most of their length, as questions about one context do: at least one,
// at most PromptBatch::kMostPrompts.
size_t windows_of_a_context(std::span<const TokenWindow> windows);
KeptText one_of_each_context(const KeptText& text);

}  // namespace scd
