#include "tools/scd/load_workload.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "common/base/error.h"

namespace scd {
namespace {

// The standard's distributions differ between libraries; its engines do not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }  // in [0, 1)
  size_t below(size_t bound) { return static_cast<size_t>(engine_() % bound); }

 private:
  std::mt19937_64 engine_;
};

// What is drawn for each request, whatever its tokens are: sources differ in nothing else.
struct Shape {
  int64_t tokens = 0;
  int64_t shared_tokens = 0;
  size_t prefix = 0;  // which of the shared ones
};

std::vector<Shape> draw_shapes(const WorkloadOptions& options, Random& random) {
  std::vector<Shape> shapes;
  for (size_t i = 0; i < options.requests; ++i) {
    const double stretch = 1 + options.prompt_spread * (2 * random.uniform() - 1);
    const bool shared = random.uniform() < options.shared_share;
    const size_t prefix = random.below(static_cast<size_t>(options.shared_prefixes));
    const auto tokens = std::max<int64_t>(1, std::llround(static_cast<double>(options.prompt_tokens) * stretch));
    shapes.push_back({.tokens = tokens,
                      .shared_tokens = shared ? std::min(options.shared_tokens, tokens - 1) : 0,
                      .prefix = prefix});
  }
  return shapes;
}

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, what); }

}  // namespace

void check_workload(const WorkloadOptions& options) {
  if (options.requests == 0) refuse("--requests is 0; ask for one at least");
  if (options.prompt_tokens < 1) refuse("--prompt-tokens must be 1 at least");
  if (!(options.prompt_spread >= 0 && options.prompt_spread < 1)) {
    refuse("--prompt-spread is " + std::to_string(options.prompt_spread) + "; it must be in [0, 1)");
  }
  if (!(options.shared_share >= 0 && options.shared_share <= 1)) {
    refuse("--shared-share is " + std::to_string(options.shared_share) + "; it must be in [0, 1]");
  }
  if (options.shared_prefixes < 1) refuse("--shared-prefixes must be 1 at least");
  if ((options.shared_share > 0) != (options.shared_tokens > 0)) {
    refuse("--shared-share and --shared-tokens go together; only one is above 0");
  }
  if (options.shared_tokens >= options.prompt_tokens && options.shared_share > 0) {
    refuse("--shared-tokens is " + std::to_string(options.shared_tokens) + " but --prompt-tokens only " +
           std::to_string(options.prompt_tokens) + "; a prompt needs a token of its own");
  }
}

std::vector<LoadPrompt> synthetic_prompts(const WorkloadOptions& options, int32_t vocabulary) {
  check_workload(options);
  Random random(options.seed);
  const auto draw = [&] { return static_cast<TokenId>(random.below(static_cast<size_t>(vocabulary))); };
  std::vector<std::vector<TokenId>> prefixes(static_cast<size_t>(options.shared_prefixes));
  for (auto& prefix : prefixes) {
    for (int64_t i = 0; i < options.shared_tokens; ++i) prefix.push_back(draw());
  }
  std::vector<LoadPrompt> prompts;
  for (const Shape& shape : draw_shapes(options, random)) {
    LoadPrompt prompt;
    const auto& prefix = prefixes[shape.prefix];
    prompt.tokens.assign(prefix.begin(), prefix.begin() + shape.shared_tokens);
    while (std::ssize(prompt.tokens) < shape.tokens) prompt.tokens.push_back(draw());
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

std::vector<LoadPrompt> text_prompts(const WorkloadOptions& options, std::span<const TokenId> text) {
  check_workload(options);
  Random random(options.seed);
  const std::vector<Shape> shapes = draw_shapes(options, random);
  const int64_t longest = std::ranges::max(shapes, {}, &Shape::tokens).tokens;
  const int64_t needed = std::max(longest, options.shared_tokens * options.shared_prefixes);
  if (std::ssize(text) < needed) {
    refuse("the text's " + std::to_string(text.size()) + " tokens are less than the " + std::to_string(needed) +
           " that the longest prompt or the shared prefixes take; give a longer --text or shorter prompts");
  }
  std::vector<LoadPrompt> prompts;
  for (const Shape& shape : shapes) {
    const auto prefix = text.subspan(shape.prefix * static_cast<size_t>(options.shared_tokens));
    const auto own = static_cast<size_t>(shape.tokens - shape.shared_tokens);
    const auto place = text.subspan(random.below(text.size() - own + 1), own);
    LoadPrompt prompt;
    prompt.tokens.assign(prefix.begin(), prefix.begin() + shape.shared_tokens);
    prompt.tokens.insert(prompt.tokens.end(), place.begin(), place.end());
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

std::vector<LoadPrompt> dataset_prompts(const WorkloadOptions& options, std::span<const std::string> prompts) {
  if (prompts.empty()) refuse("the data set holds no prompts");
  Random random(options.seed);
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t left = order.size(); left > 1; --left) std::swap(order[left - 1], order[random.below(left)]);
  std::vector<LoadPrompt> chosen;
  for (size_t i = 0; i < options.requests; ++i) chosen.push_back({.text = prompts[order[i % order.size()]]});
  return chosen;
}

std::vector<double> poisson_arrivals(double rate_per_s, size_t requests, uint64_t seed) {
  Random random(seed);
  std::vector<double> arrivals;
  double now = 0;
  for (size_t i = 0; i < requests; ++i) {
    arrivals.push_back(now);
    now += -std::log1p(-random.uniform());
  }
  const double stretch = requests > 1 ? static_cast<double>(requests - 1) / rate_per_s / arrivals.back() : 0;
  for (double& arrival : arrivals) arrival *= stretch;
  return arrivals;
}

}  // namespace scd
