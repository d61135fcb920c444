#include "decode_server/generate/sampler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/sampling.h"

namespace scd {
namespace {

uint64_t mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ULL;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBULL;
  return bits ^ (bits >> 31);
}

}  // namespace

double uniform_of(uint64_t seed, uint64_t counter) {
  const uint64_t bits = mix(mix(seed) + (counter + 1) * 0x9E3779B97F4A7C15ULL);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

Sampler::Sampler(const SamplingRequest& request, std::span<const TokenId> prompt, std::vector<TokenId> end_ids)
    : request_(request), end_ids_(std::move(end_ids)) {
  if (request_.repetition_penalty == 1.0f) return;
  seen_.assign(prompt.begin(), prompt.end());
  std::sort(seen_.begin(), seen_.end());
  seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
}

SampledToken Sampler::next(std::span<const float> logits) {
  const std::span<const float> row = penalises() || awaits_min_tokens() ? adjusted(logits) : logits;
  SampledToken token;
  token.id = kernels::sample(row, request_.options, uniform_of(request_.seed, static_cast<uint64_t>(sampled_)));
  if (request_.logprobs >= 0) {
    token.logprob = kernels::log_probability(logits, token.id);
    if (request_.logprobs > 0) token.most_probable = kernels::top_log_probabilities(logits, request_.logprobs);
  }
  remember(token.id);
  return token;
}

std::optional<PlainSampling> Sampler::plain_sampling() const {
  if (request_.logprobs >= 0 || penalises()) return std::nullopt;
  return PlainSampling{.options = request_.options,
                       .uniform = uniform_of(request_.seed, static_cast<uint64_t>(sampled_)),
                       .forbidden = awaits_min_tokens() ? end_ids_ : std::span<const TokenId>()};
}

SampledToken Sampler::next_sampled(TokenId id) {
  remember(id);
  return {.id = id};
}

void Sampler::remember(TokenId id) {
  ++sampled_;
  ++output_counts_[id];
  if (request_.repetition_penalty == 1.0f) return;
  const auto place = std::lower_bound(seen_.begin(), seen_.end(), id);
  if (place == seen_.end() || *place != id) seen_.insert(place, id);
}

bool Sampler::penalises() const {
  return !request_.logit_bias.empty() || request_.repetition_penalty != 1.0f || request_.presence_penalty != 0.0f ||
         request_.frequency_penalty != 0.0f;
}

std::span<const float> Sampler::adjusted(std::span<const float> logits) {
  scratch_.assign(logits.begin(), logits.end());
  for (const TokenId id : seen_) {
    float& logit = scratch_[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / request_.repetition_penalty : logit * request_.repetition_penalty;
  }
  for (const auto& [id, count] : output_counts_) {
    scratch_[static_cast<size_t>(id)] -=
        request_.presence_penalty + request_.frequency_penalty * static_cast<float>(count);
  }
  for (const auto& [id, bias] : request_.logit_bias) scratch_[static_cast<size_t>(id)] += bias;
  if (awaits_min_tokens()) {
    for (const TokenId id : end_ids_) scratch_[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
  return scratch_;
}

}  // namespace scd
