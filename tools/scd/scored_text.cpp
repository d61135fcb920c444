#include "tools/scd/scored_text.h"

#include <algorithm>
#include <string>

#include "common/log/progress.h"

namespace scd {
namespace {

constexpr int32_t kLongestAnswer = 24;

size_t longest_of(std::span<const TokenWindow> windows) {
  size_t longest = 0;
  for (const TokenWindow& window : windows) longest = std::max(longest, window.size());
  return longest;
}

int64_t last_tokens(const TokenWindow& window, const CacheExperimentOptions& options) {
  return std::ssize(window) - handover_tokens(std::ssize(window), options.suffix);
}

ScoredText answers_of(const CalibrationInput& input, const KeptText& text, const CacheExperimentOptions& options,
                      const std::string& purpose) {
  ScoredText answered = last_tokens_of(text.windows, options);
  CacheExperiment experiment(input.consumer, input.consumer,
                             static_cast<int64_t>(longest_of(text.windows)) + kLongestAnswer, options);
  Progress progress(purpose);
  const std::span<const TokenWindow> windows(text.windows);
  for (size_t first = 0, count = 0; first < windows.size(); first += count) {
    count = windows_of_a_context(windows.subspan(first));
    std::vector<size_t> asked;
    for (size_t i = first; i < std::min(first + count, text.prompts.size()); ++i) {
      if (text.prompts[i] > 0) asked.push_back(i);
    }
    if (asked.empty()) continue;
    std::vector<TokenWindow> prompts;
    for (const size_t i : asked)
      prompts.emplace_back(windows[i].begin(), windows[i].begin() + static_cast<std::ptrdiff_t>(text.prompts[i]));
    experiment.set_prompts(prompts, {});
    const std::vector<std::vector<TokenId>> answers = experiment.generate_all(
        kLongestAnswer, [&](TokenId id) { return std::ranges::binary_search(input.text.line_ends, id); });
    for (size_t k = 0; k < asked.size(); ++k) {
      // The prompt's last token predicts the answer's first, and so on: the answer's last predicts nothing that counts.
      prompts[k].insert(prompts[k].end(), answers[k].begin(), answers[k].end() - 1);
      answered.windows[asked[k]] = std::move(prompts[k]);
      answered.scored[asked[k]] = std::ssize(answers[k]);
    }
    progress.update(static_cast<double>(first + count) / static_cast<double>(windows.size()));
  }
  progress.finish();
  return answered;
}

}  // namespace

ScoredText validation_text(const CalibrationInput& input, const CacheExperimentOptions& options) {
  return answers_of(input, input.text.validation, options, "asking the consumer the questions of validation text");
}

ScoredText validation_sample(const CalibrationInput& input, const CacheExperimentOptions& options) {
  KeptText sample = one_of_each_context(input.text.validation);
  sample.windows.resize(std::min(sample.windows.size(), kSampledContexts));
  return answers_of(input, sample, options, "asking the consumer a question about each context of validation text");
}

ScoredText held_out_text(const CalibrationInput& input, const CacheExperimentOptions& options) {
  return answers_of(input, input.text.held_out, options, "asking the consumer the questions of held-out text");
}

ScoredText last_tokens_of(std::span<const TokenWindow> windows, const CacheExperimentOptions& options) {
  ScoredText text{{windows.begin(), windows.end()}, {}};
  for (const TokenWindow& window : windows) text.scored.push_back(last_tokens(window, options));
  return text;
}

size_t windows_of_a_context(std::span<const TokenWindow> windows) {
  size_t count = 1;
  for (; count < std::min(windows.size(), PromptBatch::kMostPrompts); ++count) {
    const TokenWindow &first = windows.front(), &other = windows[count];
    const auto alike = std::ranges::mismatch(first, other).in1 - first.begin();
    if (4 * alike < 3 * std::ssize(first) || 4 * alike < 3 * std::ssize(other)) break;
  }
  return count;
}

KeptText one_of_each_context(const KeptText& text) {
  KeptText sample;
  for (size_t i = 0; i < text.windows.size(); i += windows_of_a_context(std::span(text.windows).subspan(i))) {
    sample.windows.push_back(text.windows[i]);
    sample.prompts.push_back(i < text.prompts.size() ? text.prompts[i] : 0);
  }
  return sample;
}

}  // namespace scd
