#include "decode_server/generate/sampler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/matrix.h"
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
  if (request_.repetition_penalty != 1.0f) {
    std::vector<TokenId> seen(prompt.begin(), prompt.end());
    std::ranges::sort(seen);
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const TokenId id : seen) changes_.push_back({.id = id, .penalty = request_.repetition_penalty});
  }
  for (const auto& [id, bias] : request_.logit_bias) update_change(id);
  if (awaits_min_tokens()) std::ranges::for_each(end_ids_, [this](TokenId id) { update_change(id); });
}

SampledToken Sampler::next(std::span<const float> logits) {
  const std::span<const float> row = changes_.empty() ? logits : changed(logits);
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
  if (request_.logprobs >= 0) return std::nullopt;
  return PlainSampling{.options = request_.options,
                       .uniform = uniform_of(request_.seed, static_cast<uint64_t>(sampled_)),
                       .changes = changes_};
}

SampledToken Sampler::next_sampled(TokenId id) {
  remember(id);
  return {.id = id};
}

void Sampler::remember(TokenId id) {
  const bool awaited = awaits_min_tokens();
  ++sampled_;
  ++output_counts_[id];
  update_change(id);
  if (awaited && !awaits_min_tokens()) std::ranges::for_each(end_ids_, [this](TokenId end) { update_change(end); });
}

void Sampler::update_change(TokenId id) {
  auto place = std::ranges::lower_bound(changes_, id, {}, &kernels::LogitChange::id);
  if (place == changes_.end() || place->id != id) place = changes_.insert(place, {.id = id});
  if (output_counts_.contains(id)) place->penalty = request_.repetition_penalty;
  place->bias = bias_of(id);
  if (*place == kernels::LogitChange{.id = id}) changes_.erase(place);
}

float Sampler::bias_of(TokenId id) const {
  const bool ends = std::ranges::find(end_ids_, id) != end_ids_.end();
  if (ends && awaits_min_tokens()) return -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
  if (const auto count = output_counts_.find(id); count != output_counts_.end()) {
    sum -= request_.presence_penalty + request_.frequency_penalty * static_cast<float>(count->second);
  }
  for (const auto& [biased, bias] : request_.logit_bias) sum += biased == id ? bias : 0.0f;
  return sum;
}

std::span<const float> Sampler::changed(std::span<const float> logits) {
  scratch_.assign(logits.begin(), logits.end());
  kernels::change_logits(kernels::matrix(scratch_.data(), 1, std::ssize(scratch_)), changes_);
  return scratch_;
}

}  // namespace scd
