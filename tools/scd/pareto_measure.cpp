#include "tools/scd/pareto_measure.h"

#include <algorithm>
#include <random>
#include <span>

#include "common/base/error.h"
#include "tools/scd/account_parts.h"

namespace scd {
namespace {

constexpr size_t kChangedTokens = 8;  // of a prompt's end in the hand-off regime: less than any suffix
constexpr int64_t kWarmUpTokens = 128;

struct Measurement {
  const std::vector<std::unique_ptr<ServerPair>>& pairs;
  const ParetoPlan& plan;
  const std::stop_token& stop;
  const std::string salt = "pareto-" + std::to_string(std::random_device{}());  // no code of earlier runs counts
};

std::vector<TokenId> cut_prompt(const ParetoPlan& plan, int64_t tokens, int32_t run) {
  const size_t places = plan.text.size() - static_cast<size_t>(tokens) + 1;
  const size_t begin = static_cast<size_t>(run) * static_cast<size_t>(tokens) % places;
  const auto first = plan.text.begin() + static_cast<std::ptrdiff_t>(begin);
  return {first, first + tokens};
}

Completion ask(const Measurement& measurement, const ParetoCodec& codec, std::span<const TokenId> prompt,
               const std::string& salt) {
  v1::CompleteRequest request;
  request.set_skip_reading_prefix_cache(true);
  for (const TokenId id : prompt) request.mutable_token_ids()->add_ids(id);
  request.set_max_tokens(1);
  request.set_temperature(0);
  request.set_ignore_eos(true);
  request.set_cache_salt(salt);
  set_codec(request, codec.request());
  try {
    if (measurement.stop.stop_requested()) throw Error(ErrorCode::kCancelled, "");
    return measurement.pairs[codec.artifact]->complete(request);
  } catch (const Error& error) {
    if (measurement.stop.stop_requested()) throw Error(ErrorCode::kCancelled, "interrupted; the servers were stopped");
    throw Error(error.code(), "codec " + codec.request() + ", " + std::to_string(prompt.size()) +
                                  " tokens: " + error.what() + "\n(--codecs chooses others)");
  }
}

// A number measured in the wrong regime is worse than none.
void require_regime(const ParetoPoint& point, const v1::TransferAccount& account) {
  const std::string where =
      point.codec + ", " + std::to_string(point.prompt_tokens) + " tokens, " + point.regime + ": ";
  if (!account.fallback_reason().empty()) {
    throw Error(ErrorCode::kFailedPrecondition, where + "fell back: " + account.fallback_reason());
  }
  if (point.codec == "oracle") return;
  if (account.wire_bytes() == 0) {
    throw Error(ErrorCode::kFailedPrecondition,
                where + "nothing was handed over; ask for longer prompts with --prompt-tokens");
  }
  if (point.regime == kPrefillInPath && account.cached_tokens() > 0) {
    throw Error(ErrorCode::kInternal, where + "the prefix was known already");
  }
  if (point.regime == kHandoff && account.cached_tokens() == 0) {
    throw Error(ErrorCode::kFailedPrecondition, where + "the codes were no longer stored; raise --code-cache-mib");
  }
}

void add_sample(ParetoPoint& point, const Completion& completion) {
  const v1::TransferAccount& account = completion.finish.transfer();
  require_regime(point, account);
  TtftSample sample{.ttft_ms = account.ttft_ms()};
  for (size_t part = 0; part < kPartTimes.size(); ++part) sample.parts_ms[part] = (account.*kPartTimes[part])();
  point.samples.push_back(sample);
  point.wire_bytes = account.wire_bytes();
  point.handover_tokens = account.handover_tokens();
  point.ratio_to_bf16 = account.ratio_to_bf16();
}

// Ordered by prompt length, then codec, then regime.
std::vector<ParetoPoint> empty_points(const ParetoPlan& plan, double bandwidth_gbps) {
  std::vector<ParetoPoint> points;
  for (const int64_t tokens : plan.prompt_tokens) {
    for (const ParetoCodec& codec : plan.codecs) {
      for (const char* regime : {kPrefillInPath, kHandoff}) {
        points.push_back({.codec = codec.name,
                          .level = codec.level,
                          .bandwidth_gbps = bandwidth_gbps,
                          .prompt_tokens = tokens,
                          .regime = regime});
      }
    }
  }
  return points;
}

}  // namespace

std::vector<ParetoPoint> measure_pareto(const std::vector<std::unique_ptr<ServerPair>>& pairs, const ParetoPlan& plan,
                                        double bandwidth_gbps, const std::stop_token& stop,
                                        const ParetoProgress& progress) {
  const Measurement measurement{pairs, plan, stop};
  for (const ParetoCodec& codec : plan.codecs) {  // connections and first touches; refused codecs show at once
    const int64_t tokens = std::min(kWarmUpTokens, plan.prompt_tokens.back());
    ask(measurement, codec, cut_prompt(plan, tokens, 0), measurement.salt + "-warm-up");
  }
  std::vector<ParetoPoint> points = empty_points(plan, bandwidth_gbps);
  const size_t requests = points.size() * static_cast<size_t>(plan.repeats);
  size_t done = 0;
  for (int32_t run = 0; run < plan.repeats; ++run) {
    auto point = points.begin();
    for (const int64_t tokens : plan.prompt_tokens) {
      std::vector<TokenId> prompt = cut_prompt(plan, tokens, run);
      std::vector<TokenId> other = prompt;
      std::ranges::reverse(std::span(other).last(kChangedTokens));
      for (const ParetoCodec& codec : plan.codecs) {
        const std::string salt = measurement.salt + "-" + std::to_string(run) + "-" + std::to_string(tokens);
        for (const std::vector<TokenId>* asked : {&prompt, &other}) {
          add_sample(*point++, ask(measurement, codec, *asked, salt));
        }
        progress(done += 2, requests, codec.request() + ", " + std::to_string(tokens) + " tokens");
      }
    }
  }
  return points;
}

}  // namespace scd
